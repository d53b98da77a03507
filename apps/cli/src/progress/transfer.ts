import { createLogUpdate } from 'log-update';
import { bytes } from '../commands/sizes.ts';
import type { Session } from '../session.ts';

const drawMs = 250;

/** How much has been copied, on a terminal twice as often as one can read. */
export function showTransfer(
  session: Session,
  where: string,
): {
  add(count: number): void;
  /** Gives how much it was; may be called again. */
  close(): string;
} {
  const { out } = session;
  const { stderr } = out.streams;
  let total = 0;
  const begun = Date.now();
  const shown = !out.json && stderr.isTTY ? createLogUpdate(stderr, { showCursor: true }) : null;
  const timer = setInterval(() => {
    const seconds = (Date.now() - begun) / 1000;
    shown?.(out.noteStyle.dim(`${bytes(total)} ${where}, ${bytes(total / seconds)}/s`));
  }, drawMs).unref();
  let open = true;
  return {
    add: (count) => (total += count),
    close: () => {
      if (open) {
        open = false;
        clearInterval(timer);
        shown?.clear();
        shown?.done();
      }
      return bytes(total);
    },
  };
}
