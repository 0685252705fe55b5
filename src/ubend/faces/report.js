"use strict";
document.documentElement.classList.add("js");

// image | truth | result: one slider from 0 to 200 wipes the next picture over the one before
for (const figure of document.querySelectorAll(".compare")) {
  const [, truth, result] = figure.querySelectorAll(".pane");
  const slider = figure.querySelector("input");
  const stops = [...figure.querySelectorAll(".stops button")];
  const names = stops.map((stop) => stop.textContent);
  const show = () => {
    const at = Number(slider.value);
    truth.style.clipPath = `inset(0 ${100 - Math.min(at, 100)}% 0 0)`;
    result.style.clipPath = `inset(0 ${100 - Math.max(at - 100, 0)}% 0 0)`;
    const nearest = Math.round(at / 100), rest = at % 100, from = Math.floor(at / 100);
    slider.setAttribute("aria-valuetext", rest === 0 ? names[nearest] : `${names[from]} to ${names[from + 1]}, ${rest} %`);
    stops.forEach((stop, k) => stop.setAttribute("aria-pressed", String(at === 100 * k)));
  };
  slider.addEventListener("input", show);
  stops.forEach((stop, k) => stop.addEventListener("click", () => { slider.value = String(100 * k); show(); }));
  figure.classList.add("live");
  show();
}

for (const button of document.querySelectorAll(".copy button")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}
