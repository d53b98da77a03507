import { InvalidArgumentError, Option, type Command } from 'commander';
import type { StrategyFile } from '../context/project.ts';
import { usageError } from '../errors.ts';
import type { CanaryStep, Strategy, StrategyInput } from '../graphql/types.ts';
import { duration, parseDuration } from '../output/time.ts';
import { integer, seconds, waitOptions } from './kit.ts';

// Pure: from what was typed and what the project file says to how a deployment is to go.

const kinds = { rolling: 'ROLLING', canary: 'CANARY', 'blue-green': 'BLUE_GREEN' } as const;

export interface StrategyFlags {
  readonly strategy?: keyof typeof kinds;
  readonly maxSurge?: string;
  readonly maxUnavailable?: string;
  readonly steps?: CanaryStep[];
  readonly manual?: boolean;
  readonly keepOld?: number;
  readonly progressDeadline?: number;
}

/** The options of a command that begins a rollout. */
export const rolloutOptions = (command: Command): Command =>
  waitOptions(strategyOptions(command).optionsGroup('Waiting:'));

function strategyOptions(command: Command): Command {
  return command
    .optionsGroup('How it goes:')
    .addOption(
      new Option('--strategy <kind>', 'the way from one release to the next').choices(
        Object.keys(kinds),
      ),
    )
    .option('--max-surge <amount>', 'more than wanted at a time: 2 or 25%', amount)
    .option('--max-unavailable <amount>', 'fewer than wanted at a time: 1 or 25%', amount)
    .option('--steps <steps>', 'of a canary: 10%,50%:5m; without a time it waits for you', steps)
    .option('--manual', 'of blue-green: change over when you promote it')
    .option('--no-manual', 'of blue-green: change over as soon as it is ready')
    .option('--keep-old <duration>', 'of blue-green: keep the old ones so long after it', seconds)
    .option(
      '--progress-deadline <duration>',
      'fail when nothing gets on for so long',
      wholeSeconds,
    );
}

/** Null: as the app has it. What is typed changes what the file says. */
export function strategyInput(
  flags: StrategyFlags,
  file?: StrategyFile | undefined,
): StrategyInput | null {
  const kind = flags.strategy ?? file?.kind;
  // The rest of the file is about its own kind.
  const base = file !== undefined && kind === file.kind ? file : undefined;
  const input: StrategyInput = {
    ...(kind !== undefined && { kind: kinds[kind] }),
    ...given('maxSurge', flags.maxSurge ?? base?.maxSurge),
    ...given('maxUnavailable', flags.maxUnavailable ?? base?.maxUnavailable),
    ...given('steps', flags.steps ?? base?.steps?.map((each) => stepOf(each))),
    ...given('manual', flags.manual ?? base?.manual),
    ...given('keepOldSeconds', whole(flags.keepOld) ?? base?.keepOldSeconds),
    ...given('progressSeconds', flags.progressDeadline ?? base?.progressSeconds),
  };
  return Object.keys(input).length === 0 ? null : input;
}

const given = <K extends keyof StrategyInput>(key: K, value: StrategyInput[K] | undefined) =>
  value === undefined ? {} : { [key]: value };

const whole = (value: number | undefined) => (value === undefined ? undefined : Math.round(value));

const isAmount = (text: string) => /^(\d{1,4}|(100|\d{1,2})%)$/.test(text);

function amount(text: string): string {
  if (!isAmount(text)) throw new InvalidArgumentError('Write 2 or 25%.');
  return text;
}

function wholeSeconds(text: string): number {
  return integer(10, 86_400)(String(Math.round(seconds(text))));
}

function steps(text: string): CanaryStep[] {
  try {
    return text.split(',').map((each) => stepOf(each));
  } catch {
    throw new InvalidArgumentError('Write 10%,50% or 10%:5m,50%:10m.');
  }
}

/** `10%`, `2`, `10%:5m` */
function stepOf(text: string): CanaryStep {
  const [share = '', pause, ...rest] = text.trim().split(':');
  if (!isAmount(share) || rest.length > 0)
    throw usageError(`"${text}" is no step of a canary`, 'Write 10% or 10%:5m.');
  const pauseSeconds = pause === undefined ? null : Math.round(parseDuration(pause, 'pause'));
  return { share, pauseSeconds };
}

/** `canary 10%, 50% for 5m`; `rolling` */
export function describeStrategy(strategy: Strategy): string {
  const pace = [
    ...(strategy.maxSurge === '25%' ? [] : [`${strategy.maxSurge} more at a time`]),
    ...(strategy.maxUnavailable === '0' ? [] : [`${strategy.maxUnavailable} fewer at a time`]),
  ];
  switch (strategy.kind) {
    case 'ROLLING':
      return ['rolling', ...pace].join(', ');
    case 'CANARY': {
      const all = strategy.steps.map(({ share, pauseSeconds }) =>
        pauseSeconds === null ? share : `${share} for ${duration(pauseSeconds)}`,
      );
      return [`canary ${all.join(', ')}`, ...pace].join('; ');
    }
    case 'BLUE_GREEN': {
      const kept = `the old kept for ${duration(strategy.keepOldSeconds ?? 0)}`;
      const when = strategy.manual === true ? 'when promoted' : 'when ready';
      return [`blue-green, over ${when}`, kept, ...pace].join(', ');
    }
  }
}
