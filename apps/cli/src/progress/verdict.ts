import { CliError } from '../errors.ts';
import type { Deployment, DeploymentFailure } from '../graphql/types.ts';
import type { Style } from '../output/style.ts';

/** What a finished deployment comes to: lines for a person, and the error to end with, if any. */
export interface Verdict {
  readonly lines: string[];
  readonly error: CliError | null;
}

/** Judges a deployment in a final state; `place` is what to add to commands: ` --app hello`. */
export function judge(deployment: Deployment, place: string, style: Style): Verdict {
  const { app, to, from, status } = deployment;
  const what = `${app.name}${to === null ? '' : ` v${String(to.version)}`}`;
  switch (status) {
    case 'SUCCEEDED':
      return { lines: [`${style.good('✓')} ${success(deployment, what, place)}`], error: null };
    case 'SUPERSEDED':
      return {
        lines: [],
        error: new CliError('CONFLICT', `a newer deployment of ${app.name} took over`, {
          code: 'SUPERSEDED',
          hint: `Follow it: bulkhead deployments follow${place}`,
        }),
      };
    case 'FAILED':
    case 'RUNNING': {
      const failure = deployment.failure ?? noReason;
      const stays =
        from === null || from.version === to?.version
          ? null
          : `${app.name} stays on v${String(from.version)}.`;
      return {
        lines: [...lastLines(failure, style), ...(stays === null ? [] : [stays])],
        error: new CliError('FAILED', explain(failure, what), {
          code: failure.code,
          hint: advice(failure, deployment, place),
        }),
      };
    }
  }
}

const noReason: DeploymentFailure = {
  code: 'FAILED',
  message: 'the platform gave no reason',
  process: null,
  instance: null,
  exitCode: null,
  lastLines: [],
};

function success({ kind, app }: Deployment, what: string, place: string): string {
  if (kind === 'STOP') return `${app.name} is stopped.`;
  const counts = app.processes
    .map((process) => `${process.name}=${String(process.count)}`)
    .join(' ');
  // Scaling a stopped app only notes how many to start.
  if (app.state === 'STOPPED')
    return `${app.name} is stopped: \`bulkhead start${place}\` will run ${counts}.`;
  const routed = app.processes.some((process) => process.name === 'web' && process.count > 0);
  const state = kind === 'SCALE' ? `${what} runs ${counts}` : `${what} is ready`;
  return routed ? `${state}: ${app.url}` : `${state}.`;
}

const reasons: Record<string, (process: string) => string> = {
  IMAGE_NOT_FOUND: () => 'image not found',
  IMAGE_UNAUTHORISED: () => 'the image may not be pulled',
  IMAGE_WRONG_PLATFORM: () => 'the image is for another platform',
  IMAGE_CORRUPT: () => 'the image is damaged',
  IMAGE_NO_SPACE: () => 'the node has no room for the image',
  REGISTRY_UNREACHABLE: () => 'the registry does not answer',
  IMAGE_PULL_FAILED: () => 'the image could not be pulled',
  CRASHED: (process) => `${process} crashed`,
  OUT_OF_MEMORY: (process) => `${process} ran out of memory`,
  DISK_FULL: (process) => `${process} filled its disk`,
  HEALTH_CHECK_FAILED: (process) => `${process} is not healthy`,
  START_FAILED: (process) => `${process} could not be started`,
  NO_ROOM: (process) => `no node has room for ${process}`,
  DEADLINE_EXCEEDED: () => 'not ready in time',
  ABORTED: () => 'taken back',
};

function explain({ code, process, exitCode, message }: DeploymentFailure, what: string): string {
  const reason = reasons[code]?.(process ?? 'it');
  // The platform's words mostly hold the exit code; "137" alone would be read in "1370 ms".
  const told = !exitCode || new RegExp(`\\b${String(exitCode)}\\b`).test(message);
  const exit = told ? '' : ` (exit code ${String(exitCode)})`;
  return `${what} failed: ${reason === undefined ? '' : `${reason}: `}${message}${exit}`;
}

function lastLines(failure: DeploymentFailure, style: Style): string[] {
  if (failure.lastLines.length === 0) return [];
  const source = failure.instance === null ? 'it' : failure.instance;
  return [
    `The last lines that ${source} wrote:`,
    ...failure.lastLines.map((line) => `${style.dim('  |')} ${line}`),
    '',
  ];
}

function advice(failure: DeploymentFailure, deployment: Deployment, place: string): string {
  const process = failure.process ?? 'web';
  const image = deployment.to?.image ?? 'IMAGE';
  const again = `bulkhead deploy${place} --image ${image} --process ${process}`;
  switch (failure.code) {
    case 'IMAGE_NOT_FOUND':
      return 'Check name and tag, and that you pushed it; `bulkhead images` lists what releases use.';
    case 'IMAGE_UNAUTHORISED':
      return "Make the image public at its registry, or push it to the platform's own.";
    case 'IMAGE_WRONG_PLATFORM':
      return 'Build it for the platform of the nodes, for example: docker build --platform linux/amd64';
    case 'IMAGE_CORRUPT':
      return `Push the image again, then: bulkhead deploy${place} --image ${image}`;
    case 'IMAGE_NO_SPACE':
      return 'Make the image smaller, or ask an operator for room on the nodes.';
    case 'REGISTRY_UNREACHABLE':
    case 'IMAGE_PULL_FAILED':
      return `Try again when the registry answers: bulkhead deploy${place} --image ${image}`;
    case 'OUT_OF_MEMORY':
      return `Give it more memory, for example: ${again} --memory 512`;
    case 'DISK_FULL':
      return `Give it more disk, for example: ${again} --disk 1024`;
    case 'HEALTH_CHECK_FAILED':
      return `Does it listen on 0.0.0.0 and the port in $PORT? See its log: bulkhead logs${place} --process ${process}. Another port or path: ${again} --port 3000 --health-path /healthz`;
    case 'START_FAILED':
      return `Give it a command that is in the image: ${again} --command 'node server.js'`;
    case 'NO_ROOM':
      return `Ask for less (bulkhead scale${place} ${process}=1, or ${again} --memory 64), or ask an operator for nodes.`;
    case 'ABORTED':
      return `See what it did: bulkhead deployments info${place}`;
    case 'DEADLINE_EXCEEDED':
      return `See how far it came: bulkhead ps${place}, bulkhead logs${place}`;
    default:
      return `See its log: bulkhead logs${place} --process ${process}`;
  }
}
