// A sheet at the side of the page (at the bottom of a phone) that a new value opens and an empty one closes. The value is JSON with the
// texts of the sheet, and the id of the element to scroll to, which may appear a little later.

const APPEARS_MS = 2000;
let before = null; // what had the focus when the sheet was opened

element.setAttribute('role', 'dialog');
element.tabIndex = -1;

function close() {
  if (!element.classList.contains('open')) return;
  element.classList.remove('open');
  if (before?.isConnected) before.focus({ preventScroll: true });
}

/** Scroll to an element as soon as it is there. */
function reveal(id, until) {
  const target = element.querySelector(`[id="${id}"]`);
  if (target?.clientHeight) target.scrollIntoView({ block: 'center' });
  else if (performance.now() < until) setTimeout(() => reveal(id, until), 50);
}

watch('value', () => {
  if (!props.value) return close();
  if (!element.contains(document.activeElement)) before = document.activeElement;
  const { target, title, close: closing } = JSON.parse(props.value);
  element.querySelector('h2').textContent = title;
  element.setAttribute('aria-label', title);
  element.querySelector('.close').setAttribute('aria-label', closing);
  element.classList.add('open');
  element.focus({ preventScroll: true });
  if (target) reveal(target, performance.now() + APPEARS_MS);
});
element.querySelector('.close').addEventListener('click', close);
element.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.target.getAttribute('aria-expanded') === 'true') return; // which closes an open list
  event.stopPropagation();
  close();
});
