import stringWidth from 'string-width';

// Names, messages and log lines come from other people. A terminal obeys what it is sent, so nothing
// of theirs reaches it with an escape sequence in it: a log line must not be able to clear the
// screen, rewrite earlier lines or set the window's title.

const escapeSequences =
  /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c|$)|[ -/]*[0-~])/g;
const colourSequence = /^\u001b\[[0-9;:]*m$/;
// Other control characters, and the Unicode marks that reorder what is shown (Trojan Source).
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Removes every control character and escape sequence but tabs. Newlines become spaces. */
export function plainText(text: string): string {
  return text.replace(escapeSequences, '').replace(/\r?\n/g, ' ').replace(controls, '');
}

/** As `plainText`, but keeps colours and ends with a reset when there were any. */
export function colouredText(text: string): string {
  let out = '';
  let coloured = false;
  let from = 0;
  for (const match of text.matchAll(escapeSequences)) {
    out += plainText(text.slice(from, match.index));
    if (colourSequence.test(match[0])) {
      out += match[0];
      coloured = true;
    }
    from = match.index + match[0].length;
  }
  out += plainText(text.slice(from));
  return coloured ? `${out}\u001b[0m` : out;
}

/** Columns that the text takes on a terminal. */
export const width = (text: string): number => stringWidth(text);

/** Cuts plain text to at most `columns`, with an ellipsis when something is missing. */
export function fit(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  if (columns <= 1) return '…'.slice(0, columns);
  let out = '';
  let used = 0;
  for (const char of text) {
    const size = width(char);
    if (used + size > columns - 1) break;
    out += char;
    used += size;
  }
  return `${out}…`;
}

/** Pads with spaces to `columns`; counts what is shown, not bytes or colour codes. */
export function pad(text: string, columns: number, align: 'left' | 'right' = 'left'): string {
  const gap = ' '.repeat(Math.max(0, columns - width(text)));
  return align === 'left' ? text + gap : gap + text;
}
