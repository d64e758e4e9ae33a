"use strict";
document.documentElement.classList.add("live");

// Sliders: the right picture lies over the left one and is cut off at the range's value.
for (const scene of document.querySelectorAll(".scene")) {
  const pair = scene.querySelector(".pair"), range = scene.querySelector("input");
  const pictures = scene.querySelectorAll(".strip img");
  const show = () => {
    const names = [];
    for (const [side, image] of [["left", ".under"], ["right", ".over"]]) {
      const choice = scene.querySelector("select." + side);
      pair.querySelector(image).src = pictures[choice.value].src;
      names.push(choice.selectedOptions[0].text);
    }
    pair.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", range.value + " % " + names[0] + ", the rest " + names[1]);
  };
  const follow = (event) => {
    const box = pair.getBoundingClientRect();
    range.value = Math.round(100 * (event.clientX - box.left) / box.width);
    show();
  };
  pair.addEventListener("pointerdown", (event) => { pair.setPointerCapture(event.pointerId); follow(event); });
  pair.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  scene.addEventListener("input", show);
  show();
}

// Plots: drawn on a canvas of their own, so the page's colours have to be handed over.
const plots = JSON.parse(document.getElementById("plots").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = (isDark) => {
  const [ink, line] = isDark ? ["#e6e9ec", "#3a424a"] : ["#1d2126", "#d5dae0"];
  const axis = { axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: line,
    major_tick_line_color: line, minor_tick_line_color: line };
  const looks = { Title: { text_color: ink }, Grid: { grid_line_color: line }, LinearAxis: axis, LogAxis: axis };
  for (const shown of Bokeh.documents)
    for (const model of shown._all_models.values())
      if (model.type in looks) model.setv(looks[model.type]);
};
if (plots.items.length)
  Bokeh.embed.embed_items(plots.documents, plots.items).then(() => {
    paint(dark.matches);
    dark.addEventListener("change", () => paint(dark.matches));
    addEventListener("beforeprint", () => paint(false));
    addEventListener("afterprint", () => paint(dark.matches));
    document.documentElement.dataset.plots = "drawn";
  });
for (const keys of document.querySelectorAll(".keys"))
  keys.addEventListener("change", (event) => {
    const name = keys.previousElementSibling.id;
    const item = plots.items[0], root = Object.keys(item.roots).find((id) => item.roots[id] === name);
    const figure = Bokeh.documents[0].get_model_by_id(root);
    for (const drawn of figure.renderers) if (drawn.name === event.target.value) drawn.visible = event.target.checked;
  });
