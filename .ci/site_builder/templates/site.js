// Search, light and dark, the table of contents that follows, copying code. Without this script everything can still be read and followed.
"use strict";
(() => {
  const root = document.currentScript ? document.currentScript.dataset.root : document.querySelector("script[data-root]").dataset.root;
  const $ = (selector, from = document) => from.querySelector(selector), all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // light or dark: the reader's choice is kept, else the system's is followed
  $("button.theme").addEventListener("click", () => {
    const dark = (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch (e) { /* a private window keeps nothing */ }
  });

  // the table of contents: a drawer on narrow screens
  const drawer = $("#chapters"), menu = $("header .menu");
  const toggle = open => { document.body.classList.toggle("drawer", open); menu.setAttribute("aria-expanded", String(open)); if (open) $("a", drawer).focus(); };
  menu.addEventListener("click", event => { event.preventDefault(); toggle(!document.body.classList.contains("drawer")); });
  document.addEventListener("keydown", event => { if (event.key === "Escape" && document.body.classList.contains("drawer")) { toggle(false); menu.focus(); } });
  drawer.addEventListener("click", event => { if (event.target.closest("a")) toggle(false); });
  document.addEventListener("click", event => { if (document.body.classList.contains("drawer") && !event.target.closest("#chapters, .menu")) toggle(false); });
  const here = $("[aria-current=page]", drawer);
  if (here) drawer.scrollTop = here.offsetTop - 120;

  // the section in view is marked in the table of contents
  const links = new Map(all(".sections a[href^='#']", drawer).map(a => [decodeURIComponent(a.hash.slice(1)), a]));
  const places = [...links.keys()].map(id => document.getElementById(id)).filter(Boolean);
  let waiting = false;
  const follow = () => {
    waiting = false;
    let current = null;
    for (const place of places) if (place.getBoundingClientRect().top < 140) current = place; else break;
    links.forEach((a, id) => a.classList.toggle("seen", !!current && id === current.id));
    const a = current && links.get(current.id);
    if (a && (a.offsetTop < drawer.scrollTop + 40 || a.offsetTop > drawer.scrollTop + drawer.clientHeight - 60)) drawer.scrollTop = a.offsetTop - drawer.clientHeight/2;
  };
  if (places.length) { addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(follow); } }, {passive: true}); follow(); }

  // what can be scrolled sideways can also be reached with the keyboard
  all("pre, .table, .equation").forEach(box => { if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; });

  // copying code
  if (navigator.clipboard) all("pre.code").forEach(pre => {
    const button = Object.assign(document.createElement("button"), {className: "copy", type: "button", textContent: "Copy"});
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText($("code", pre).textContent); button.textContent = "Copied"; } catch (e) { button.textContent = "Not allowed"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    const frame = document.createElement("div");
    frame.className = "copyable";
    pre.replaceWith(frame);
    frame.append(pre, button);
  });

  // search: every word must occur; names before titles before text. The index is a script, so that it also loads from a folder without a server.
  const input = $(".search input"), hits = $("#hits");
  let loading = null, chosen = -1;
  const index = () => loading = loading || new Promise((done, failed) => {
    if (window.SEARCH) return done(window.SEARCH);
    const script = Object.assign(document.createElement("script"), {src: root + "search.js", onload: () => done(window.SEARCH), onerror: failed});
    document.head.append(script);
  });
  const score = (entry, words) => {
    entry.low = entry.low || {title: entry.title.toLowerCase(), names: " " + entry.names.toLowerCase() + " ", text: entry.text.toLowerCase(), place: entry.place.toLowerCase()};
    let total = 0;
    for (const word of words) {
      const {title, names, text, place} = entry.low;
      const points = (title === word ? 100 : title.startsWith(word) ? 40 : title.includes(word) ? 25 : 0) + (names.includes(` ${word} `) ? 60 : names.includes(word) ? 12 : 0)
        + (text.includes(word) ? 4 + Math.min(4, text.split(word).length - 1) : 0) + (place.includes(word) ? 3 : 0);
      if (!points) return 0;
      total += points;
    }
    return total;
  };
  const marked = (text, words) => {   // pieces of text with the words marked, as nodes: nothing from a page is ever read as HTML
    const pattern = new RegExp("(" + words.map(w => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|") + ")", "ig");
    return text.split(pattern).map((piece, i) => i % 2 ? Object.assign(document.createElement("mark"), {textContent: piece}) : piece);
  };
  const excerpt = (text, words) => {
    const at = Math.max(0, Math.min(...words.map(w => { const i = text.toLowerCase().indexOf(w); return i < 0 ? Infinity : i; })));
    const from = Number.isFinite(at) ? Math.max(0, text.lastIndexOf(" ", Math.max(0, at - 50)) + 1) : 0;
    return (from ? "… " : "") + text.slice(from, from + 170) + (text.length > from + 170 ? " …" : "");
  };
  const close = () => { hits.hidden = true; chosen = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const search = async () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length || input.value.trim().length < 2) return close();
    let entries;
    try { entries = await index(); } catch (e) { entries = []; }
    if (words.join(" ") !== input.value.toLowerCase().split(/\s+/).filter(Boolean).join(" ")) return;   // typed on while the index was loading
    const found = entries.map(entry => [score(entry, words), entry]).filter(([points]) => points).sort((a, b) => b[0] - a[0]).slice(0, 12);
    hits.replaceChildren(...found.map(([, entry], i) => {
      const a = Object.assign(document.createElement("a"), {href: root + entry.url, id: "hit" + i});
      a.setAttribute("role", "option");
      const part = (name, nodes) => { const span = Object.assign(document.createElement("span"), {className: name}); span.append(...nodes); a.append(span); };
      part("what", marked(entry.title, words));
      part("where", [entry.place]);
      part("text", marked(excerpt(entry.text, words), words));
      return a;
    }));
    if (!found.length) hits.textContent = "Nothing found.";
    hits.hidden = false;
    chosen = -1;
    input.setAttribute("aria-expanded", "true");
  };
  input.addEventListener("input", search);
  input.addEventListener("focus", () => { index().catch(() => {}); if (input.value) search(); });
  input.addEventListener("keydown", event => {
    const options = all("a", hits);
    if (event.key === "Escape") { close(); input.blur(); }
    else if (options.length && !hits.hidden && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      chosen = (chosen + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length;
      options.forEach((a, i) => a.setAttribute("aria-selected", String(i === chosen)));
      options[chosen].scrollIntoView({block: "nearest"});
      input.setAttribute("aria-activedescendant", options[chosen].id);
    } else if (options.length && event.key === "Enter") { event.preventDefault(); (options[chosen] || options[0]).click(); close(); }
  });
  hits.addEventListener("click", event => { if (event.target.closest("a")) close(); });
  document.addEventListener("click", event => { if (!event.target.closest(".search")) close(); });
  document.addEventListener("keydown", event => {
    if ((event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) || (event.key === "k" && (event.ctrlKey || event.metaKey))) { event.preventDefault(); input.focus(); input.select(); }
  });
})();
