"use strict";
const source = document.getElementById("source"), reason = document.getElementById("reason");
const groups = [...document.querySelectorAll(".group")];

function filter() {
  let cards = 0;
  for (const group of groups) {
    group.hidden = (source.value && group.dataset.source !== source.value) || (reason.value && group.dataset.reason !== reason.value);
    if (!group.hidden) cards += group.querySelectorAll("article").length;
  }
  document.getElementById("shown").textContent = cards;
}

function changed() {
  filter();
  history.replaceState(null, "", "#" + new URLSearchParams({source: source.value, reason: reason.value}));
}

const asked = new URLSearchParams(location.hash.slice(1));
source.value = asked.get("source") || "";
reason.value = asked.get("reason") || "";
source.addEventListener("change", changed);
reason.addEventListener("change", changed);
filter();
