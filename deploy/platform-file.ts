/**
 * `$STATE/platform.json`: what this platform was started with. A later `up` without options goes on
 * with the same ones, and `down` needs none.
 */
import { ensureFile, readTextIfThere } from './files.ts';
import { layout, makeSettings, type PlatformOptions, type PlatformSettings } from './settings.ts';

type Remembered = Omit<PlatformOptions, 'root' | 'stateDir'>;

interface PlatformFile {
  root: string;
  options: Remembered;
}

/** Settings from `options`, and for what they leave open from the last start in this state directory. */
export async function readSettings(options: PlatformOptions): Promise<PlatformSettings> {
  const { stateDir } = makeSettings({ root: options.root, stateDir: options.stateDir });
  const known = (await readPlatformFile(stateDir))?.options ?? {};
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const node = { ...known.node, ...options.node };
  return makeSettings({ ...known, ...(Object.fromEntries(given) as PlatformOptions), node });
}

/** Null when there is none, or none that can be read: it was never started, or is damaged. */
export async function readPlatformFile(stateDir: string): Promise<PlatformFile | null> {
  try {
    return JSON.parse(
      (await readTextIfThere(layout(stateDir).platformFile)) ?? 'null',
    ) as PlatformFile | null;
  } catch {
    return null;
  }
}

export async function writePlatformFile(settings: PlatformSettings): Promise<void> {
  const file: PlatformFile = {
    root: settings.root,
    options: {
      portBase: settings.portBase ?? undefined,
      apiReplicas: settings.apiReplicas,
      edges: settings.edges,
      listen: settings.listen ?? undefined,
      domain: settings.domain,
      databaseUrl: settings.databaseUrl ?? undefined,
      signUp: settings.signUp,
      trustedProxies: settings.trustedProxies ?? undefined,
      maxTenantsPerUser: settings.maxTenantsPerUser ?? undefined,
      rebalanceMoves: settings.rebalanceMoves ?? undefined,
      edge: settings.edge,
      node: settings.node,
    },
  };
  // With a database URL it holds a password.
  await ensureFile(
    layout(settings.stateDir).platformFile,
    `${JSON.stringify(file, null, 2)}\n`,
    0o600,
  );
}
