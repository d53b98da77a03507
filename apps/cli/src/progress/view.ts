import type { Deployment, DeploymentKind, Instance, InstanceState } from '../graphql/types.ts';
import type { Style } from '../output/style.ts';
import { fit, pad } from '../output/text.ts';
import { clock, elapsed } from '../output/time.ts';

// Pure: deployments in, lines out. Two faces of one thing: a picture that is drawn again for a
// terminal, and a line per change for a log.

const titles: Record<DeploymentKind, string> = {
  DEPLOY: 'Deploying',
  CONFIG: 'New configuration for',
  SCALE: 'Scaling',
  RESTART: 'Restarting',
  ROLLBACK: 'Rolling back',
  STOP: 'Stopping',
  START: 'Starting',
  RESIZE: 'Resizing',
};

/** `Deploying hello v4` */
export function title(deployment: Deployment): string {
  const version = deployment.to === null ? '' : ` v${String(deployment.to.version)}`;
  return `${titles[deployment.kind]} ${deployment.app.name}${version}`;
}

/** How an instance is doing in one word; one on its way out says so, whatever its process does. */
export function stateOf(instance: Pick<Instance, 'state' | 'desired' | 'paused'>): string {
  if (instance.state === 'GONE') return 'gone';
  if (instance.desired === 'GONE') return 'stopping';
  if (instance.desired === 'DRAINING') return 'draining';
  // Still leaving the route, or being told to its node.
  if (instance.paused && instance.state !== 'PAUSED') return 'pausing';
  return instance.state.toLowerCase();
}

const marks: Partial<Record<InstanceState, string>> = {
  READY: '●',
  BACKOFF: '✗',
  CRASHLOOP: '✗',
  FAILED: '✗',
  UNREADY: '!',
  PAUSED: '‖',
};

/** The state in its colour. */
export function paintState(state: string, style: Style, text = state): string {
  switch (state) {
    case 'ready':
      return style.good(text);
    case 'failed':
    case 'backoff':
    case 'crashloop':
      return style.bad(text);
    case 'unready':
    case 'paused':
    case 'pausing':
      return style.warn(text);
    case 'stopping':
    case 'draining':
    case 'ended':
    case 'gone':
      return style.dim(text);
    default:
      return text;
  }
}

export interface Canvas {
  readonly columns: number;
  readonly rows: number;
  readonly now: Date;
  readonly style: Style;
  /** Counts up; moves the spinner. */
  readonly frame: number;
  /** What is wrong with the connection, if anything. */
  readonly trouble: string | null;
}

const spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/** The picture: title, the last steps, the processes and their instances; fits the terminal. */
export function draw(deployment: Deployment, canvas: Canvas): string[] {
  const { columns, rows, now, style, trouble } = canvas;
  const lines = [heading(deployment, canvas)];
  const image = deployment.to?.image;
  if (deployment.kind === 'DEPLOY' && image !== undefined)
    lines.push(style.dim(fit(`  ${image}`, columns)));
  const instances = instanceLines(deployment, canvas);
  const events = deployment.events.map((event) =>
    style.dim(fit(`  ${clock(event.at)}  ${event.message}`, columns)),
  );
  const notes = [trouble ?? '', waitOf(deployment, now)].filter((note) => note !== '');
  const footer = notes.map((note) => style.warn(fit(`  ${note}`, columns)));
  // The newest steps matter; the terminal must keep a line free, or it scrolls at every redraw.
  const space = Math.max(2, rows - 1 - lines.length - footer.length);
  const roomForInstances = Math.max(2, space - Math.min(events.length, 3));
  const shown = cut(instances, roomForInstances, (more) =>
    style.dim(`  … and ${String(more)} more`),
  );
  const steps = events.slice(-Math.min(6, Math.max(1, space - shown.length)));
  return [...lines, ...steps, ...shown, ...footer];
}

/** What it waits for, if that is worth a word. */
function waitOf({ pause, deadlineAt, status }: Deployment, now: Date): string {
  if (pause === null) {
    const late = status === 'RUNNING' && now.getTime() > Date.parse(deadlineAt);
    return late ? 'past its deadline; the platform should end it soon' : '';
  }
  const place = `step ${String(pause.step)}`;
  return pause.until === null
    ? `${place} waits to be promoted: bulkhead promote, or bulkhead abort`
    : `${place} goes on at ${clock(pause.until)}; now: bulkhead promote; back: bulkhead abort`;
}

/** What a deployment at a gate waits for, and what to type. `place`: ` --app hello`. */
export function adviseAtGate({ app, to, pause, steps }: Deployment, place: string): string {
  const what = `${app.name}${to === null ? '' : ` v${String(to.version)}`}`;
  const where = `step ${String(pause?.step ?? 0)} of ${String(steps)}`;
  const go = `bulkhead promote${place}`;
  const back = `bulkhead abort${place}`;
  if (pause?.until != null)
    return `${what} stands at ${where} until ${clock(pause.until)}. Go on now: ${go}. Go back: ${back}`;
  return `${what} waits at ${where}. Go on: ${go}. Go back: ${back}`;
}

function heading(deployment: Deployment, { columns, now, style, frame }: Canvas): string {
  const end = deployment.finishedAt === null ? now.getTime() : Date.parse(deployment.finishedAt);
  const seconds = (end - Date.parse(deployment.createdAt)) / 1000;
  const text = fit(title(deployment), columns - 12);
  const age = style.dim(elapsed(seconds));
  switch (deployment.status) {
    case 'RUNNING':
      return `${spinner[frame % spinner.length] ?? ' '} ${style.bold(text)}  ${age}`;
    case 'SUCCEEDED':
      return `${style.good('✓')} ${style.bold(text)}  ${age}`;
    case 'FAILED':
      return `${style.bad('✗')} ${style.bold(text)}  ${age}`;
    case 'SUPERSEDED':
      return `${style.warn('-')} ${style.bold(text)}  ${age}`;
  }
}

function instanceLines(deployment: Deployment, { columns, style }: Canvas): string[] {
  const names = new Set([
    ...deployment.app.processes.map((process) => process.name),
    ...deployment.instances.map((instance) => instance.process),
  ]);
  const size = Math.max(4, ...[...names].map((name) => name.length));
  return [...names].flatMap((name) => {
    const process = deployment.app.processes.find((one) => one.name === name);
    const counts = process
      ? `${String(process.ready)}/${String(process.count)} ready`
      : 'going away';
    const complete = process !== undefined && process.ready >= process.count;
    return [
      `  ${style.bold(pad(name, size))}  ${complete ? style.good(counts) : counts}`,
      ...deployment.instances
        .filter((instance) => instance.process === name)
        .sort((a, b) => b.release - a.release || a.id.localeCompare(b.id))
        .map((instance) => instanceLine(instance, columns, style)),
    ];
  });
}

const isDown = (state: InstanceState) => state === 'BACKOFF' || state === 'CRASHLOOP';

function instanceLine(instance: Instance, columns: number, style: Style): string {
  const state = stateOf(instance);
  const mark = instance.desired === 'RUNNING' ? (marks[instance.state] ?? '○') : '·';
  const notes = [
    instance.restarts > 0
      ? `${String(instance.restarts)} ${instance.restarts === 1 ? 'restart' : 'restarts'}`
      : '',
    instance.message ?? (isDown(instance.state) ? (instance.lastExit?.message ?? '') : ''),
  ].filter((note) => note !== '');
  const head = `    ${mark} ${instance.id}  ${pad(`v${String(instance.release)}`, 4)} ${pad(state, 9)}`;
  const text = fit(`${head} ${notes.join(', ')}`.trimEnd(), columns);
  return paintState(state, style, text);
}

function cut(lines: string[], most: number, rest: (more: number) => string): string[] {
  if (lines.length <= most) return lines;
  return [...lines.slice(0, most - 1), rest(lines.length - most + 1)];
}

/** States that a log should tell of even when no step of the deployment does. */
const telling: readonly string[] = [
  'backoff',
  'crashloop',
  'failed',
  'unready',
] satisfies Lowercase<InstanceState>[];

/**
 * A line for each new step, and for each instance that is now in trouble without a step saying so;
 * with a title when there was nothing before.
 */
export function changes(previous: Deployment | null, next: Deployment): string[] {
  const lines: string[] = [];
  if (previous === null) {
    const image = next.kind === 'DEPLOY' && next.to !== null ? ` (${next.to.image})` : '';
    lines.push(`${title(next)}${image}, deployment ${next.id}`);
  }
  const known = new Set(previous?.events.map((event) => event.id));
  const fresh = next.events.filter((event) => !known.has(event.id));
  lines.push(...fresh.map((event) => `${clock(event.at)} ${event.message}`));
  const before = new Map(previous?.instances.map((instance) => [instance.id, stateOf(instance)]));
  for (const instance of next.instances) {
    const state = stateOf(instance);
    if (!telling.includes(state) || before.get(instance.id) === state) continue;
    if (fresh.some((event) => event.message.includes(instance.id))) continue;
    const note = instance.message === null ? '' : `: ${instance.message}`;
    lines.push(`  ${instance.process} ${instance.id} v${String(instance.release)} ${state}${note}`);
  }
  return lines;
}
