// The texts of the viewer in the language of the visitor; the scripts and the page have the English ones, which are the keys.

let catalog = {}; // texts by their English ones, as the value brings them

/** Return a text in the language of the visitor, with values for its {places}. */
function gettext(text, values = {}) {
  return (catalog[text] ?? text).replace(/{(\w+)}/g, (place, name) => values[name] ?? place);
}

/** Return what puts the texts and labels that are in an element now into the language of the visitor, whenever it is called. */
function makeTranslator(node) {
  const found = [];
  const texts = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    const [before, english, after] = text.data.match(/^(\s*)(.*?)(\s*)$/s).slice(1);
    if (/[a-z]{2}/.test(english)) found.push(() => (text.data = before + gettext(english) + after));
  }
  for (const name of ['aria-label', 'alt']) {
    for (const labeled of [node, ...node.querySelectorAll(`[${name}]`)]) {
      const english = labeled.getAttribute(name);
      if (english) found.push(() => labeled.setAttribute(name, gettext(english)));
    }
  }
  return () => found.forEach((translate) => translate());
}
