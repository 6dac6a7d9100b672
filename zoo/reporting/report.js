"use strict";
// Points at a chart: the values there take the place of the last ones in its legend.
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), cursor = svg.querySelector(".cursor"), at = chart.querySelector(".at");
  const first = Number(chart.dataset.first), last = Number(chart.dataset.last);
  const base = svg.querySelector(".base"), width = svg.viewBox.baseVal.width;
  const left = base.x1.baseVal.value, right = base.x2.baseVal.value;
  const told = [...chart.querySelectorAll(".legend b")];
  const lines = [...chart.querySelectorAll(".line")].map((line) => ({
    kimg: line.dataset.kimg.split(" ").filter(Boolean).map(Number),
    values: line.dataset.values.split(" ").filter(Boolean),
  }));
  if (!(last > first)) continue;

  const nearest = (places, wanted) => {
    let low = 0, high = places.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] < wanted) low = middle; else high = middle;
    }
    return Math.abs(places[low] - wanted) <= Math.abs(places[high] - wanted) ? low : high;
  };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (right - left);
    const wanted = first + Math.min(1, Math.max(0, share)) * (last - first);
    let shown = null;
    lines.forEach((line, i) => {
      if (!line.kimg.length) return;
      const place = nearest(line.kimg, wanted);
      told[i].textContent = Number(line.values[place]).toPrecision(4).replace(/\.?0+(?=$|e)/, "");
      if (shown === null || Math.abs(line.kimg[place] - wanted) < Math.abs(shown - wanted)) shown = line.kimg[place];
    });
    if (shown === null) return;
    const x = left + (shown - first) / (last - first) * (right - left);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.classList.add("on");
    at.textContent = `at ${Number(shown.toPrecision(4))} kimg`;
  });
  svg.addEventListener("pointerleave", () => {
    cursor.classList.remove("on");
    for (const each of [at, ...told]) each.textContent = each.dataset.last;
  });
}
