"use strict";
document.documentElement.classList.add("js");

for (const slider of document.querySelectorAll("input[data-levels]")) {
  const levels = slider.dataset.levels.split(" ");
  const output = document.getElementById(slider.getAttribute("aria-describedby"));
  const strips = document.querySelectorAll(".strip");
  const show = () => {
    const said = "turned at noise-to-signal " + levels[slider.value];
    output.textContent = said;
    slider.setAttribute("aria-valuetext", said);
    for (const strip of strips) strip.classList.toggle("shown", strip.dataset.turn === slider.value);
  };
  slider.addEventListener("input", show);
  show();
}

// what is folded away belongs on paper too, and is folded again afterwards
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
