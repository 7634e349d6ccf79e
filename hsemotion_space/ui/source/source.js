// Where pictures and clips come from: files that are dropped or pasted anywhere on the page go to the file input of the workspace, and
// once there is a result, all that is left of it is one line with "Replace…". The value is JSON; see `source_value` in Python.

const root = element.querySelector('.source');
const workspace = element.closest('.workspace');
const MOST_TOGETHER = 2;
const input = () => workspace.querySelector('.media input[type=file]');
const translate = makeTranslator(root);
const listening = new AbortController();

/** Hand files to the file input, which uploads them: one, or a session and its media. */
function take(files) {
  if (!files.length || !input()) return;
  const transfer = new DataTransfer();
  for (const file of [...files].slice(0, MOST_TOGETHER)) transfer.items.add(file);
  input().files = transfer.files;
  input().dispatchEvent(new Event('change', { bubbles: true }));
  const panel = element.closest('[role=tabpanel]');
  document.querySelector(`[role=tab][aria-controls="${panel?.id}"]`)?.click();
}

/** Listen on the whole page, until this element is gone. */
function listen(name, handle) {
  document.addEventListener(name, (event) => {
    if (!element.isConnected) listening.abort();
    else if (!event.defaultPrevented) handle(event);
  }, { signal: listening.signal });
}

const holdsFiles = (event) => event.dataTransfer?.types.includes('Files');
listen('dragover', (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  workspace.classList.add('dragging');
});
listen('dragleave', (event) => event.relatedTarget || workspace.classList.remove('dragging'));
listen('drop', (event) => {
  workspace.classList.remove('dragging');
  if (!holdsFiles(event)) return;
  event.preventDefault();
  take(event.dataTransfer.files);
});
listen('paste', (event) => {
  if (!event.clipboardData?.files.length) return;
  event.preventDefault();
  take(event.clipboardData.files);
});

function exampleButton({ kind, title, thumbnail }) {
  const [button, image] = [document.createElement('button'), document.createElement('img')];
  Object.assign(button, { type: 'button', className: `${kind}-example` });
  Object.assign(image, { src: thumbnail, alt: '' });
  button.append(image, title);
  button.addEventListener('click', () => trigger('example', { kind }));
  return button;
}

function show() {
  const { name, about, examples, texts } = JSON.parse(props.value);
  catalog = texts;
  translate();
  const filled = Boolean(name);
  workspace.classList.toggle('filled', filled);
  root.querySelector('.file').hidden = !filled;
  root.querySelector('.examples').hidden = filled || !examples.length;
  const details = document.createElement('small');
  details.textContent = about;
  root.querySelector('.name').replaceChildren(name, details);
  root.querySelectorAll('.examples button').forEach((button) => button.remove());
  root.querySelector('.examples').append(...examples.map(exampleButton));
}

root.querySelector('.replace').addEventListener('click', () => input()?.click());
root.querySelector('.remove').addEventListener('click', () => trigger('remove', {}));
watch('value', show);
if (props.value) show();
