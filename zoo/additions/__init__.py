"""What ``--add`` adds to a recipe, whatever the architecture; `zoo.additions.contract` says what an addition is."""
