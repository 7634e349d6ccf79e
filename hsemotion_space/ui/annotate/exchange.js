// One event at a time goes to the server; the component shows when it does not answer within WAIT_MS.

let waiting = 0; // timer while an answer is on its way

function send(event) {
  if (!data || waiting) return;
  waiting = setTimeout(() => {
    tell('.problem', gettext('The server did not respond. Try again.'));
    free();
  }, WAIT_MS);
  root.setAttribute('aria-busy', 'true');
  trigger('act', { turn: data.turn, ...event });
}

function free() {
  clearTimeout(waiting);
  waiting = 0;
  root.removeAttribute('aria-busy');
}
