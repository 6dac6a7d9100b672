"""StyleGAN3: a synthesis network whose every operation is designed for the continuous signal behind the samples."""
