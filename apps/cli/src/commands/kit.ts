import { InvalidArgumentError, type Command } from 'commander';
import type { GlobalOptions } from '../context/settings.ts';
import { usageError } from '../errors.ts';
import { Session, type Io } from '../session.ts';
import { parseDuration } from '../output/time.ts';

/** How a command's action gets its session; made once per run by `program`. */
export type Act = <Args extends unknown[], Options = object>(
  action: (session: Session, options: Options & GlobalOptions, ...args: Args) => Promise<void>,
) => (...params: unknown[]) => Promise<void>;

/** Opens a session with the options of the command and of the commands above it. */
export function actWith(io: Io): Act {
  return <Args extends unknown[], Options>(
      action: (session: Session, options: Options & GlobalOptions, ...args: Args) => Promise<void>,
    ) =>
    async (...params: unknown[]) => {
      const command = params.at(-1) as Command;
      const options = command.optsWithGlobals<Options & GlobalOptions>();
      const session = await Session.open(io, options);
      // Commander passes the arguments, then the options, then the command.
      await action(session, options, ...(params.slice(0, -2) as Args));
    };
}

/** Adds commands to try to the end of a command's help. */
export function examples(command: Command, lines: readonly string[], notes?: string): Command {
  const text = [
    ...(notes === undefined ? [] : ['', notes]),
    '',
    'Examples:',
    ...lines.map((line) => `  $ bulkhead ${line}`),
  ];
  return command.addHelpText('after', text.join('\n'));
}

export function tenantOption(command: Command): Command {
  return command.option(
    '-t, --tenant <name>',
    'tenant; else BULKHEAD_TENANT, ./bulkhead.json, the context',
  );
}

export function appOptions(command: Command): Command {
  return tenantOption(
    command.option('-a, --app <name>', 'app; else BULKHEAD_APP, ./bulkhead.json'),
  );
}

/** As `appOptions`, for commands whose -t is a terminal. */
export function remoteAppOptions(command: Command): Command {
  return command
    .option('-a, --app <name>', 'app; else BULKHEAD_APP, ./bulkhead.json')
    .option('--tenant <name>', 'tenant; else BULKHEAD_TENANT, ./bulkhead.json, the context');
}

export function waitOptions(command: Command): Command {
  return command
    .option('-d, --detach', 'do not wait for the deployment to finish')
    .option('--wait', 'wait also while it waits to be promoted, until it is over')
    .option('--no-wait', 'the same as --detach')
    .option(
      '--timeout <duration>',
      'stop waiting after this time (the deployment goes on)',
      seconds,
    );
}

export interface WaitOptions {
  readonly detach?: boolean;
  /** True: to its very end; false: not at all. */
  readonly wait?: boolean;
  readonly timeout?: number;
}

/** An option's value in seconds: `90`, `30s`, `10m`. */
export function seconds(text: string): number {
  try {
    return parseDuration(text, 'duration');
  } catch {
    throw new InvalidArgumentError('Write 30s, 10m or 2h.');
  }
}

/** A whole number within limits, for options. */
export function integer(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(
        `Not a whole number from ${String(least)} to ${String(most)}.`,
      );
    }
    return value;
  };
}

/**
 * Makes a group of commands do `action` when it is named alone (`bulkhead apps` lists them), while
 * a mistyped command of the group still gets a suggestion.
 */
export function groupDefault(
  group: Command,
  action: (...params: unknown[]) => Promise<void>,
): Command {
  return group.allowExcessArguments().action(async (...params) => {
    // Commander's own message with its suggestion; it only leaves it out for groups with an action.
    if (group.args.length > 0) (group as unknown as { unknownCommand(): never }).unknownCommand();
    await action(...params);
  });
}

/** The options that repeat where a command was pointed, for commands that we suggest. */
export function placeOf(session: Session, at: { tenant: string; app: string }): string {
  const tenant = session.options.tenant === undefined ? '' : ` --tenant ${at.tenant}`;
  return ` --app ${at.app}${tenant}`;
}

/** For an option that may be repeated. */
export const collect = (value: string, before: readonly string[] = []): string[] => [
  ...before,
  value,
];

/** `name=value`. */
export function parseLabel(text: string): { name: string; value: string } {
  const at = text.indexOf('=');
  if (at < 1 || at === text.length - 1)
    throw usageError(`"${text}" is not name=value`, 'Example: zone=a');
  return { name: text.slice(0, at), value: text.slice(at + 1) };
}
