import { createLogUpdate } from 'log-update';
import { CliError } from '../errors.ts';
import { instances } from '../graphql/operations.ts';
import type { Instance } from '../graphql/types.ts';
import { fit } from '../output/text.ts';
import { elapsed } from '../output/time.ts';
import type { Session } from '../session.ts';

const lookMs = 1_000;
const drawMs = 125;
const spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

const words: Partial<Record<Instance['state'], string>> = {
  PENDING: 'waiting for a node with room',
  ASSIGNED: 'waiting for its node',
  PULLING: 'pulling the image',
  STARTING: 'starting',
};

/** What a task that does not run yet waits for, in words. */
export function waitsFor({ state, message }: Pick<Instance, 'state' | 'message'>): string {
  const word = words[state] ?? state.toLowerCase();
  return message === null ? word : `${word}: ${message}`;
}

/**
 * Shows on a terminal what a new instance waits for, until it is closed. Only for eyes: whoever
 * reads JSON or a pipe sees nothing, and a question without an answer is left out.
 */
export function showWaiting(
  session: Session,
  at: { tenant: string; app: string },
  instance: Instance,
): { close(): void } {
  const { out } = session;
  const { stderr } = out.streams;
  if (out.json || !stderr.isTTY) return { close: () => undefined };
  const update = createLogUpdate(stderr, { showCursor: true });
  const closed = new AbortController();
  const client = session.client().until(closed.signal);
  const begun = Date.now();
  let now = instance;
  let frame = 0;
  const draw = () => {
    frame += 1;
    const sign = spinner[frame % spinner.length] ?? '';
    const time = elapsed((Date.now() - begun) / 1000);
    const text = `${sign} ${instance.id} ${waitsFor(now)} (${time})`;
    update(out.noteStyle.dim(fit(text, (stderr.columns || 80) - 1)));
  };
  const look = () => {
    client
      .all(instances, { ...at, includeGone: false }, (result) => result.app.instances)
      .then((all) => (now = all.find(({ id }) => id === instance.id) ?? now))
      .catch((error: unknown) => {
        if (!(error instanceof CliError)) throw error;
      });
  };
  const timers = [setInterval(draw, drawMs), setInterval(look, lookMs)];
  draw();
  return {
    close: () => {
      if (closed.signal.aborted) return;
      closed.abort();
      timers.forEach(clearInterval);
      update.clear();
      update.done();
    },
  };
}
