// A moment of the comparison leads the linked viewer of the same tab to its face and its frame.

element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-time]');
  const viewer = element.closest('[role=tabpanel]')?.querySelector('.viewer');
  if (!button || !viewer) return;
  const detail = { time: Number(button.dataset.time), face: Number(button.dataset.face) };
  viewer.dispatchEvent(new CustomEvent('goto', { detail }));
  viewer.scrollIntoView({ block: 'start' });
  viewer.focus({ preventScroll: true });
});
