import { read } from 'read';
import { Interrupted, usageError } from '../errors.ts';
import type { Streams } from './output.ts';

/** Asks on stderr, so that stdout stays the command's result. Throws when nobody can answer. */
export async function ask(
  streams: Streams,
  question: string,
  options: { secret?: boolean; default?: string; insteadOf: string },
): Promise<string> {
  if (!streams.stdin.isTTY) {
    throw usageError(`there is no terminal to ask on: "${question}"`, options.insteadOf);
  }
  try {
    return await read({
      prompt: `${question}: `,
      silent: options.secret === true,
      input: streams.stdin,
      output: streams.stderr,
      ...(options.default === undefined ? {} : { default: options.default }),
    });
  } catch (error) {
    if (error instanceof Error && error.message === 'canceled') throw new Interrupted();
    throw error;
  }
}

/** All of stdin without the newline at its end: for secrets that come through a pipe. */
export async function readStdin(streams: Streams, option: string): Promise<string> {
  if (streams.stdin.isTTY)
    streams.stderr.write(`Reading ${option} from the terminal; end with Ctrl-D.\n`);
  let text = '';
  streams.stdin.setEncoding('utf8');
  for await (const chunk of streams.stdin) {
    text += String(chunk);
    if (text.length > 1024 * 1024) throw usageError(`${option}: more than 1 MiB on stdin`);
  }
  return text.replace(/\r?\n$/, '');
}
