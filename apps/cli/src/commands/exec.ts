import type { Command } from 'commander';
import { usageError } from '../errors.ts';
import { exec } from '../graphql/operations.ts';
import { attend, endWith, terminalFor, terminalInput } from '../streams/attend.ts';
import { instanceId } from './instance-name.ts';
import { examples, remoteAppOptions, type Act } from './kit.ts';

interface ExecOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly instance?: string;
  readonly process?: string;
}

const shell = ['/bin/sh'];

export function execCommand(program: Command, act: Act): void {
  examples(
    remoteAppOptions(
      program
        .command('exec')
        .description('Run a command in a running instance')
        .argument('[command...]', 'after --; with -it a shell when absent')
        .option('-i, --interactive', 'pass on what is typed or piped in')
        .option('-t, --tty', 'with a terminal')
        .option('--instance <id>', 'in this instance; its first letters do')
        .option(
          '-p, --process <name>',
          'in an instance of this process (default: web or the first)',
        ),
    ).action(
      act(async (session, options: ExecOptions, words: string[]) => {
        const wantsShell = options.interactive === true && options.tty === true;
        const command = words.length > 0 ? words : shell;
        if (words.length === 0 && !wantsShell) {
          throw usageError(
            'no command given',
            'Write it after --: bulkhead exec -- ls -l; or `bulkhead exec -it` for a shell.',
          );
        }
        const terminal = terminalFor(session, options.tty === true);
        const at = session.app();
        const client = session.client();
        const instance =
          options.instance === undefined ? null : await instanceId(client, at, options.instance);
        const stdin = options.interactive === true;
        const input = {
          ...at,
          instance,
          process: options.process ?? null,
          command,
          stdin,
          terminal: terminalInput(session, terminal),
        };
        const { exec: ticket } = await client.request(exec, { input });
        const how = { stdin, terminal, detachable: false, onInterrupt: 'signal' } as const;
        endWith((await attend(session, ticket, how)) ?? 0);
      }),
    ),
    [
      'exec -it --app hello',
      'exec --app hello -- ls -l /data',
      "exec --app hello --process worker -- sh -c 'kill -USR1 1'",
      'exec -i --app hello --instance i3k9 -- psql < dump.sql',
    ],
    "Ends with the command's exit code. It ends, too, when the connection is lost.",
  );
}
