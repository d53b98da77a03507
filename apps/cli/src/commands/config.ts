import type { Command } from 'commander';
import { readFile } from 'node:fs/promises';
import { parseEnv } from 'node:util';
import { CliError, usageError } from '../errors.ts';
import { config, setConfig } from '../graphql/operations.ts';
import { readStdin } from '../output/prompt.ts';
import type { Session } from '../session.ts';
import { followOrDetach } from './deployments.ts';
import { appOptions, examples, groupDefault, type Act, type WaitOptions } from './kit.ts';
import { rolloutOptions, strategyInput, type StrategyFlags } from './strategy.ts';

interface ConfigChange {
  readonly name: string;
  readonly value: string | null;
}

/** Pairs from the command line and an env file; `NAME=-` takes its value from stdin, once. */
async function readPairs(
  session: Session,
  pairs: readonly string[],
  envFile: string | undefined,
): Promise<ConfigChange[]> {
  const changes = new Map<string, string>();
  if (envFile !== undefined) {
    const text = await readFile(envFile, 'utf8').catch((error: unknown) => {
      throw usageError(`cannot read ${envFile}: ${(error as Error).message}`);
    });
    for (const [name, value] of Object.entries(parseEnv(text))) changes.set(name, value ?? '');
  }
  let piped: string | null = null;
  for (const pair of pairs) {
    const split = pair.indexOf('=');
    if (split <= 0) {
      throw usageError(
        `"${pair}" is not NAME=value`,
        'Example: bulkhead config set GREETING=hello SECRET=-',
      );
    }
    const name = pair.slice(0, split);
    const value = pair.slice(split + 1);
    if (value === '-') {
      if (piped !== null)
        throw usageError(`only one value can come from stdin: ${piped} and ${name} both want it`);
      piped = name;
      changes.set(name, await readStdin(session.io.streams, name));
    } else {
      changes.set(name, value);
    }
  }
  if (changes.size === 0)
    throw usageError('nothing to set', 'Example: bulkhead config set GREETING=hello');
  return [...changes].map(([name, value]) => ({ name, value }));
}

async function change(
  session: Session,
  vars: readonly ConfigChange[],
  options: WaitOptions & StrategyFlags,
): Promise<void> {
  const at = session.app();
  const { out } = session;
  const { setConfig: saved } = await session
    .client()
    .request(setConfig, { input: { ...at, vars: [...vars], strategy: strategyInput(options) } });
  if (saved.deployment === null) {
    out.data(saved);
    out.line(
      saved.app.currentRelease === null
        ? 'Saved. It takes effect with the first deploy.'
        : 'Nothing changed: it was so before.',
    );
    return;
  }
  await followOrDetach(session, saved.deployment.id, at, options);
}

export function configCommands(program: Command, act: Act): void {
  const listAction = act(async (session, options: { names?: boolean }) => {
    const at = session.app();
    const { app } = await session.client().request(config, at);
    const rows = [...app.config].sort((a, b) => a.name.localeCompare(b.name));
    if (options.names === true) {
      session.out.data(rows.map((row) => row.name));
      for (const row of rows) session.out.line(row.name);
      return;
    }
    session.out.list(
      rows,
      [
        { title: 'NAME', value: (row) => row.name },
        { title: 'VALUE', value: (row) => row.value, shrink: true },
      ],
      `${at.app} has no configuration.`,
    );
  });
  const names = (command: Command) =>
    appOptions(command).option('--names', 'names only, no values');
  const group = names(
    program
      .command('config')
      .description('Environment variables of an app; a change is a new release'),
  );
  examples(groupDefault(group, listAction), [
    'config --app hello',
    'config set GREETING=hi --app hello',
  ]);
  examples(
    names(group.command('list').description('List the configuration (the default)')).action(
      listAction,
    ),
    [
      'config list --app hello',
      'config list --app hello --names',
      'config list --app hello --json',
    ],
  );
  examples(
    appOptions(
      group.command('get').description('Print one value, exactly').argument('<name>'),
    ).action(
      act(async (session, _options: object, name: string) => {
        const at = session.app();
        const { app } = await session.client().request(config, at, true);
        const found = app.config.find((one) => one.name === name);
        if (found === undefined) {
          throw new CliError('NOT_FOUND', `${at.app} has no ${name}`, {
            hint: `See \`bulkhead config list --app ${at.app} --names\`.`,
          });
        }
        session.out.data(found);
        session.out.line(found.value);
      }),
    ),
    ['config get GREETING --app hello'],
  );
  examples(
    rolloutOptions(
      appOptions(
        group
          .command('set')
          .description('Set variables, and roll them out')
          .argument(
            '[NAME=value...]',
            'NAME=- reads the value from stdin: no secret in the shell’s history',
          )
          .option('--env-file <path>', 'read variables from a file of NAME=value lines'),
      ),
    ).action(
      act(
        async (
          session,
          options: WaitOptions & StrategyFlags & { envFile?: string },
          pairs: string[],
        ) => {
          await change(session, await readPairs(session, pairs, options.envFile), options);
        },
      ),
    ),
    [
      'config set GREETING="hello there" LOG_LEVEL=debug --app hello',
      'config set DATABASE_URL=- --app hello < url.txt',
      'config set --env-file .env --app hello',
    ],
  );
  examples(
    rolloutOptions(
      appOptions(
        group
          .command('unset')
          .description('Remove variables, and roll that out')
          .argument('<name...>'),
      ),
    ).action(
      act(async (session, options: WaitOptions & StrategyFlags, removed: string[]) => {
        await change(
          session,
          removed.map((name) => ({ name, value: null })),
          options,
        );
      }),
    ),
    ['config unset GREETING LOG_LEVEL --app hello'],
  );
}
