import type { Command } from 'commander';
import { plainText } from '../output/text.ts';
import { instances } from '../graphql/operations.ts';
import { Session, type Io } from '../session.ts';

/** Whoever presses Tab does not wait for longer. */
const patienceMs = 2_000;
/** Commands, and groups of them with their commands, whose first argument is an instance. */
const takesInstance = /^(?:diff|cp|port-forward|tasks (?:attach|stop))$/;

/** What stands for an option's value among the words, whichever way it was written. */
function valueOf(words: readonly string[], ...names: string[]): string | undefined {
  for (const [index, word] of words.entries()) {
    if (names.includes(word)) return words[index + 1];
    const name = names.find((one) => word.startsWith(`${one}=`));
    if (name !== undefined) return word.slice(name.length + 1);
  }
  return undefined;
}

/** Whether the last of the words, which is being typed, is to be an instance. */
export function wantsInstance(words: readonly string[], valued: ReadonlySet<string>): boolean {
  const current = words.at(-1) ?? '';
  const before = words.slice(0, -1);
  if (before.includes('--') || current.startsWith('-')) return false;
  if (before.at(-1) === '--instance') return true;
  const plain = before.filter(
    (word, index) => !word.startsWith('-') && !valued.has(before[index - 1] ?? ''),
  );
  return !valued.has(before.at(-1) ?? '') && takesInstance.test(plain.join(' '));
}

/** Every option of the program that has a value, as it is written. */
function optionsWithValue(command: Command): string[] {
  return [
    ...command.options
      .filter(({ required, optional }) => required || optional)
      .flatMap(({ short, long }) => [short, long].filter((name) => name !== undefined)),
    ...command.commands.flatMap(optionsWithValue),
  ];
}

/** Adds the app's instances to what `complete` offers. Nothing when the server does not answer. */
export function completeInstances(program: Command, complete: Command, io: Io): void {
  complete.hook('preAction', async (_hooked, { args: words }) => {
    if (!wantsInstance(words, new Set(optionsWithValue(program)))) return;
    const server = valueOf(words, '--server');
    const context = valueOf(words, '--context', '-c');
    const app = valueOf(words, '--app', '-a');
    const tenant = valueOf(words, '--tenant');
    try {
      const session = await Session.open(io, {
        ...(server === undefined ? {} : { server }),
        ...(context === undefined ? {} : { context }),
        ...(app === undefined ? {} : { app }),
        ...(tenant === undefined ? {} : { tenant }),
      });
      const at = { ...session.app(), includeGone: false };
      const client = session.client().until(AbortSignal.timeout(patienceMs));
      const found = await client.all(instances, at, (result) => result.app.instances);
      const suffix = words[0] === 'cp' ? ':' : '';
      for (const { id, process, state } of found)
        io.streams.stdout.write(
          `${plainText(id)}${suffix}\t${plainText(process)}, ${state.toLowerCase()}\n`,
        );
    } catch {
      // Tab has no place for an error.
    }
  });
}
