// Light or dark: the system's choice, or the one kept from last time. Runs before the page is
// painted, so that it does not flash.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const choices = ["auto", "light", "dark"];
  let choice = "auto";
  try {
    const kept = localStorage.getItem("mrcon-theme");
    if (choices.includes(kept)) choice = kept;
  } catch { /* storage may be forbidden */ }

  function apply() {
    const auto = dark.matches ? "dark" : "light";
    root.dataset.theme = choice === "auto" ? auto : choice;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${choice}`;
  }

  apply();
  dark.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      choice = choices[(choices.indexOf(choice) + 1) % choices.length];
      try {
        localStorage.setItem("mrcon-theme", choice);
      } catch { /* then it lasts as long as the page */ }
      apply();
    });
  });
})();
