/**
 * Reads the part of the Dockerfile language that needs nothing run: FROM, ARG, COPY, ENV, WORKDIR,
 * USER, EXPOSE, LABEL, CMD and ENTRYPOINT. Anything else is refused rather than skipped: what is
 * built here must be what another builder makes of the same file.
 */
export interface Dockerfile {
  from: string;
  copies: { sources: string[]; target: string }[];
  env: [string, string][];
  labels: [string, string][];
  exposed: string[];
  workdir: string | null;
  user: string | null;
  /** Null: the base's. Empty: none. */
  cmd: string[] | null;
  entrypoint: string[] | null;
}

export function parseDockerfile(
  text: string,
  buildArgs: Readonly<Record<string, string>> = {},
): Dockerfile {
  const file: Dockerfile = {
    from: '',
    copies: [],
    env: [],
    labels: [],
    exposed: [],
    workdir: null,
    user: null,
    cmd: null,
    entrypoint: null,
  };
  const args = new Map<string, string>();
  for (const { number, line } of logicalLines(text)) {
    const [, word = '', rest = ''] = /^([A-Za-z]+)\s+(.*)$/s.exec(line) ?? [];
    const instruction = word.toUpperCase();
    const refuse = (why: string) => new Error(`Dockerfile line ${number}: ${why}: ${line}`);
    if (file.from === '' && instruction !== 'FROM' && instruction !== 'ARG')
      throw refuse('FROM comes first');
    switch (instruction) {
      case 'ARG': {
        const [name = '', value = ''] = splitPair(rest);
        args.set(name, buildArgs[name] ?? value);
        break;
      }
      case 'FROM':
        if (file.from !== '') throw refuse('only one FROM');
        file.from = expand(rest, args);
        break;
      case 'COPY': {
        if (rest.startsWith('--')) throw refuse('COPY without options only');
        const words = rest.split(/\s+/);
        const target = absolute(words.pop() ?? '', file.workdir);
        if (words.length === 0) throw refuse('COPY takes sources and a target');
        if (words.length > 1 && !target.endsWith('/'))
          throw refuse('several sources go into a directory, ending in /');
        file.copies.push({ sources: words, target });
        break;
      }
      case 'ENV':
        if (!rest.includes('=')) throw refuse('ENV takes NAME=value');
        file.env.push(...pairs(rest));
        break;
      case 'LABEL':
        file.labels.push(...pairs(rest));
        break;
      case 'WORKDIR':
        file.workdir = absolute(rest, file.workdir);
        break;
      case 'USER':
        file.user = rest;
        break;
      case 'EXPOSE':
        file.exposed.push(
          ...rest.split(/\s+/).map((port) => (port.includes('/') ? port : `${port}/tcp`)),
        );
        break;
      case 'CMD':
        file.cmd = execForm(rest) ?? fail(refuse('CMD in its JSON form only'));
        break;
      case 'ENTRYPOINT':
        file.entrypoint = execForm(rest) ?? fail(refuse('ENTRYPOINT in its JSON form only'));
        break;
      default:
        throw refuse('not possible in an offline build');
    }
  }
  if (file.from === '') throw new Error('The Dockerfile has no FROM.');
  return file;
}

/** Without comments and empty lines; a line that ends in \ goes on in the next. */
function* logicalLines(text: string): Generator<{ number: number; line: string }> {
  let held = '';
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (line.endsWith('\\')) {
      held += `${line.slice(0, -1).trim()} `;
      continue;
    }
    yield { number: index + 1, line: held + line };
    held = '';
  }
}

const expand = (text: string, args: ReadonlyMap<string, string>): string =>
  text.replace(/\$\{?(\w+)\}?/g, (_, name: string) => args.get(name) ?? '');

function splitPair(text: string): [string, string] {
  const at = text.indexOf('=');
  return at < 0 ? [text, ''] : [text.slice(0, at), unquote(text.slice(at + 1))];
}

const pairs = (text: string): [string, string][] =>
  (text.match(/[\w.-]+=("[^"]*"|\S*)/g) ?? []).map(splitPair);

const unquote = (text: string): string => /^"(.*)"$/s.exec(text)?.[1] ?? text;

/** A relative path counts from WORKDIR; a trailing slash stays. */
function absolute(path: string, workdir: string | null): string {
  if (path.startsWith('/')) return path;
  const base = `${workdir ?? ''}/`;
  return path === '.' || path === './' ? base : base + path.replace(/^\.\//, '');
}

function execForm(text: string): string[] | null {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : null;
  } catch {
    return null;
  }
}

function fail(error: Error): never {
  throw error;
}
