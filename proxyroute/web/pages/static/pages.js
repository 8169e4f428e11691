// Keeps a page fresh and switches its looks. Everything works without it, too; then pages load themselves anew.
"use strict";

// -- light or dark --

const themes = ["", "light", "dark"];
const button = document.getElementById("theme");

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  button.textContent = "Theme: " + (theme || "system");
}

button.hidden = false;
showTheme(document.documentElement.dataset.theme || "");
button.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "";
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = "proxyroute_theme=" + next + "; path=/; samesite=strict; max-age=" + (next ? 31536000 : 0) + secure;
  showTheme(next);
});

// -- what changes --

// Makes the children of `place` those of `fresh`; what is there already stays the same element, so that the focus,
// what is selected and what is opened stay as they are.
function morph(place, fresh) {
  let here = place.firstChild;
  for (const wanted of Array.from(fresh.childNodes)) {
    if (!here) {
      place.appendChild(wanted);
      continue;
    }
    const next = here.nextSibling;
    if (here.nodeType !== wanted.nodeType || here.nodeName !== wanted.nodeName) place.replaceChild(wanted, here);
    else if (here.nodeType === Node.ELEMENT_NODE) alter(here, wanted);
    else if (here.nodeValue !== wanted.nodeValue) here.nodeValue = wanted.nodeValue;
    here = next;
  }
  while (here) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}

function alter(here, wanted) {
  if (here.isEqualNode(wanted)) return;
  for (const { name } of Array.from(here.attributes)) {
    if (!wanted.hasAttribute(name) && !(here.nodeName === "DETAILS" && name === "open")) here.removeAttribute(name);
  }
  for (const { name, value } of Array.from(wanted.attributes)) {
    if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  }
  morph(here, wanted);
}

function place(name, parent) {
  let found = document.getElementById("part-" + name);
  if (!found && parent) {
    found = document.createElement("li");
    found.id = "part-" + name;
    parent.appendChild(found);
  }
  return found;
}

function put(parts) {
  for (const [name, text] of Object.entries(parts)) {
    if (!name.startsWith("order:")) continue;
    const list = document.getElementById("part-" + name.slice(6));
    const wanted = text.split(" ").filter(Boolean).map((item) => place(item, list));
    wanted.forEach((item, number) => {
      if (list.children[number] !== item) list.insertBefore(item, list.children[number] || null);
    });
    while (list.children.length > wanted.length) list.lastElementChild.remove();
  }
  for (const [name, text] of Object.entries(parts)) {
    const found = name.startsWith("order:") ? null : place(name, null);
    if (!found) continue;
    const fresh = document.createElement("template");
    fresh.innerHTML = text;
    morph(found, fresh.content);
  }
}

const told = document.getElementById("live");
const address = document.body.dataset.live;
const SILENT = 15000; // milliseconds without any word after which what is shown counts as old
let source = null;
let heard = Date.now();
let moving = false;

// Says how fresh the page is. The word is read out when it changes; for how long it holds is only to be seen.
function tell(state, word, since = "") {
  if (!told) return;
  told.dataset.state = state;
  const [said, seen] = told.children;
  if (said.textContent !== word) said.textContent = word;
  seen.textContent = since;
}

function hear() {
  heard = Date.now();
  tell("on", "live");
}

// A browser has six connections to us for all its tabs: whoever is not looked at leaves his to the others.
function listen() {
  if (source) source.close();
  if (document.hidden) return tell("off", "not live");
  source = new EventSource(address);
  source.addEventListener("parts", (event) => {
    hear();
    put(JSON.parse(event.data));
  });
  source.addEventListener("ping", hear);
  source.addEventListener("ended", leave);
  source.addEventListener("go", (event) => {
    moving = true;
    location.assign(JSON.parse(event.data).to);
  });
  source.addEventListener("error", () => {
    if (moving) return;
    tell("off", "connecting again…");
    if (source.readyState === EventSource.CLOSED) ask();
  });
}

// The stream was refused: because nobody is logged in any more, or because something else is the matter for now.
async function ask() {
  try {
    const stop = new AbortController();
    const answer = await fetch(address, { signal: stop.signal, headers: { Accept: "text/event-stream" } });
    stop.abort(); // only the status counts
    if (answer.status === 401) return leave();
  } catch {
    // nobody answers; the next try will tell
  }
  setTimeout(listen, 2000);
}

function leave() {
  moving = true;
  source.close();
  location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
}

if (address) {
  listen();
  setInterval(() => {
    const old = Date.now() - heard;
    if (old > SILENT && !document.hidden) tell("off", "no news", " for " + Math.round(old / 1000) + " s");
  }, 1000);
  document.addEventListener("visibilitychange", listen);
  // a page that comes back from the browser's memory has an old picture
  window.addEventListener("pageshow", (event) => event.persisted && listen());
}
