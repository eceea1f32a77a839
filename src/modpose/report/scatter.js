"use strict";
// The scatter of content: views, colours, and the image of the point under the pointer.
(function () {
  const data = JSON.parse(document.getElementById("scatter-data").textContent);
  const byId = name => document.getElementById(name);
  const pick = { view: byId("view"), colouring: byId("colouring") };
  const hover = byId("hover"), bar = byId("bar"), canvas = byId("plot");
  const shown = 112;  // side of a thumbnail on the page

  const unpacked = packed => {
    const bytes = Uint8Array.from(atob(packed.codes), sign => sign.charCodeAt(0));
    const codes = new DataView(bytes.buffer);
    return Float64Array.from({ length: bytes.length / 2 }, (_, i) => {
      const code = codes.getUint16(2 * i, true);
      return code === 65535 ? NaN : packed.low + packed.step * code;
    });
  };
  data.views.forEach(view => { view.x = unpacked(view.x); view.y = unpacked(view.y); });
  data.colourings.forEach(colouring => { colouring.values = unpacked(colouring.values); });
  const fill = (select, items) => items.forEach((item, k) => select.add(new Option(item.name, k)));
  fill(pick.view, data.views);
  fill(pick.colouring, data.colourings);
  const radius = Math.max(2, Math.min(4.5, 130 / Math.sqrt(data.index.length)));
  const rows = Array.from(data.index.keys());

  function colour(colouring, value) {
    if (!Number.isFinite(value)) return "#9aa5b1";
    const [low, high] = colouring.limits, last = colouring.scale.length - 1;
    const place = high > low ? (value - low) / (high - low) : 0.5;
    return colouring.scale[Math.round(Math.max(0, Math.min(1, place)) * last)];
  }

  function dataset(view, chosen, label, colours) {
    return {
      label: label, rows: chosen, data: chosen.map(i => ({ x: view.x[i], y: view.y[i] })),
      backgroundColor: colours, borderWidth: 0, pointRadius: radius, pointHoverRadius: radius + 2,
    };
  }

  function datasets(view, colouring) {
    if (colouring.kind !== "categories") {
      return [dataset(view, rows, colouring.name, rows.map(i => colour(colouring, colouring.values[i]) + "cc"))];
    }
    return colouring.categories.map((name, k) => dataset(
      view, rows.filter(i => colouring.values[i] === k), name, data.colours[k % data.colours.length] + "cc"));
  }

  function describe(colouring, i) {
    const value = colouring.values[i];
    const text = colouring.kind === "categories" ? colouring.categories[value] : Number(value.toPrecision(4));
    return colouring.name + ": " + text;
  }

  function thumbnail(sheet, i) {
    const box = document.createElement("div"), picture = document.createElement("div"), text = document.createElement("small");
    picture.className = "thumb";
    picture.style.backgroundImage = "url(" + sheet.sheet + ")";
    picture.style.backgroundSize = (sheet.columns * shown) + "px auto";
    picture.style.backgroundPosition = (-(i % sheet.columns) * shown) + "px " + (-Math.floor(i / sheet.columns) * shown) + "px";
    text.textContent = sheet.title;
    box.append(picture, text);
    return box;
  }

  function showImage({ chart, tooltip }) {
    if (!tooltip.opacity || !tooltip.dataPoints) { hover.style.display = "none"; return; }
    const point = tooltip.dataPoints[0], i = chart.data.datasets[point.datasetIndex].rows[point.dataIndex];
    const text = document.createElement("div");
    text.textContent = "image " + data.index[i] + " · " + describe(data.colourings[+pick.colouring.value], i);
    hover.replaceChildren(text);
    const known = data.thumbnails.filter(sheet => i < sheet.count);
    if (known.length) {
      const pair = document.createElement("div");
      pair.className = "pair";
      known.forEach(sheet => pair.append(thumbnail(sheet, i)));
      hover.append(pair);
    }
    hover.style.display = "block";
    const frame = canvas.getBoundingClientRect();
    hover.style.left = Math.max(8, Math.min(frame.left + tooltip.caretX + 16, window.innerWidth - hover.offsetWidth - 8)) + "px";
    hover.style.top = Math.max(8, Math.min(frame.top + tooltip.caretY + 16, window.innerHeight - hover.offsetHeight - 8)) + "px";
  }

  function styled(name) {
    const style = getComputedStyle(document.documentElement);
    return { title: { display: true, text: name, color: style.getPropertyValue("--ink") },
      ticks: { color: style.getPropertyValue("--muted") }, grid: { color: style.getPropertyValue("--rule") } };
  }

  const wheel = { wheel: { enabled: true, modifierKey: "ctrl" }, pinch: { enabled: true }, drag: { enabled: false }, mode: "xy" };
  const chart = new Chart(canvas, {
    type: "scatter", data: { datasets: [] },
    options: {
      animation: false, maintainAspectRatio: false, responsive: true, normalized: true,
      interaction: { mode: "nearest", intersect: true },
      plugins: { tooltip: { enabled: false, external: showImage }, zoom: { zoom: wheel, pan: { enabled: true, mode: "xy" } } },
    },
  });

  function draw() {
    const view = data.views[+pick.view.value], colouring = data.colourings[+pick.colouring.value];
    const named = colouring.kind === "categories";
    chart.data.datasets = datasets(view, colouring);
    chart.options.scales = { x: styled(view.xName), y: styled(view.yName) };
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
    chart.options.plugins.legend = { display: named, position: "right", labels: { color: ink, usePointStyle: true }, title: { display: true, text: colouring.name, color: ink } };
    bar.style.display = named ? "none" : "flex";
    if (!named) {
      const [low, strip, high] = bar.children;
      low.textContent = colouring.name + "  " + Number(colouring.limits[0].toPrecision(3));
      strip.style.background = "linear-gradient(to right, " + colouring.scale.join(",") + ")";
      high.textContent = Number(colouring.limits[1].toPrecision(3));
    }
    chart.update();
  }

  byId("choosers").hidden = false;
  byId("chart").hidden = false;
  document.querySelectorAll("figure.still").forEach(figure => { figure.hidden = true; });
  pick.view.onchange = () => { chart.resetZoom(); draw(); };
  pick.colouring.onchange = draw;
  byId("all").onclick = () => chart.resetZoom();
  canvas.onkeydown = event => {
    const act = { "+": () => chart.zoom(1.25), "-": () => chart.zoom(0.8), "0": () => chart.resetZoom() }[event.key];
    if (act) { act(); event.preventDefault(); }
  };
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  chart.resize();
  draw();
})();
