// What tests measure in a page. One expression: an object of functions.
({
  // How many texts there are, and those whose colour is too near to that behind them: WCAG's formula, AA's limits.
  pale() {
    const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
    const channel = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const solid = (colour) => colour.length === 3 || (colour.length === 4 && colour[3] === 1);

    function ratio(one, other) {
      const [more, less] = [light(one), light(other)].sort((a, b) => b - a);
      return (more + 0.05) / (less + 0.05);
    }

    function ground(element) {
      for (let e = element; e; e = e.parentElement) {
        const box = e.nodeName === "g" ? e.querySelector(":scope > rect.box") : null;
        const colour = parse(box ? getComputedStyle(box).fill : getComputedStyle(e).backgroundColor);
        if (solid(colour)) return colour;
      }
      return [255, 255, 255];
    }

    const found = [];
    const seen = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.nodeValue.trim() || seen.has(element) || !element.checkVisibility()) continue;
      if (["SCRIPT", "STYLE", "NOSCRIPT", "title"].includes(element.nodeName)) continue;
      seen.add(element);
      const style = getComputedStyle(element);
      const colour = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const value = ratio(colour, ground(element));
      if (value < (large ? 3 : 4.5)) found.push(`${value.toFixed(2)} ${element.textContent.trim().slice(0, 40)}`);
    }
    return [seen.size, found];
  },

  // What is drawn beyond its box, or beyond the window.
  cut() {
    const found = [];
    for (const text of document.querySelectorAll("svg.graph text")) {
      if (!text.checkVisibility()) continue;
      const box = text.parentElement.querySelector("rect.box").getBoundingClientRect();
      const own = text.getBoundingClientRect();
      if (own.right > box.right + 0.5 || own.left < box.left - 0.5) found.push(text.textContent);
    }
    for (const element of document.querySelectorAll("main *")) {
      if (!element.checkVisibility() || element.closest("svg, .hidden, .scroll, pre, thead, input")) continue;
      const own = element.getBoundingClientRect();
      if (own.right > innerWidth + 0.5 || own.left < -0.5) found.push(element.outerHTML.slice(0, 80));
    }
    return found;
  },

  // What a screen reader could not tell: unnamed things, headings that skip a level, ids that are there twice.
  unnamed() {
    const found = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const tell = (what, element) => found.push(`${what}: ${element.outerHTML.slice(0, 80)}`);
    for (const e of all("input:not([type=hidden]), select, textarea")) {
      if (!e.labels.length && !e.getAttribute("aria-label")) tell("no label", e);
    }
    for (const e of all("a, button, summary")) {
      if (!(e.getAttribute("aria-label") || e.textContent).trim()) tell("no name", e);
    }
    for (const e of all("svg[role=img]")) {
      if (!e.getAttribute("aria-label") && !e.querySelector("title")) tell("no title", e);
    }
    for (const e of all("svg:not([role=img])")) if (e.getAttribute("aria-hidden") !== "true") tell("no role", e);
    for (const e of all("table")) if (!e.querySelector("th[scope]")) tell("no headers", e);
    const ids = all("[id]").map((e) => e.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: ${id}`);
    for (const e of all("[aria-labelledby], [aria-describedby]")) {
      const told = e.getAttribute("aria-labelledby") || e.getAttribute("aria-describedby");
      for (const id of told.split(" ")) if (!document.getElementById(id)) found.push(`nothing has the id ${id}`);
    }
    if (all("h1").length !== 1) found.push(`${all("h1").length} h1`);
    if (!document.documentElement.lang || all("main").length !== 1 || !document.title) found.push("no main or title");
    let level = 0;
    for (const h of all("h1, h2, h3, h4")) {
      const own = Number(h.nodeName[1]);
      if (own > level + 1) tell("skips a level", h);
      level = own;
    }
    return found;
  },
})
