/**
 * What `bulkhead-agent doctor` says of a host: one finding per thing that was tried. A wall is what
 * keeps one tenant from another; where one is missing the agent does not start unless it was told
 * so by name.
 */
export interface Finding {
  /** Short and stable: `disk-limit`. */
  check: string;
  status: 'ok' | 'degraded' | 'missing';
  wall: boolean;
  /** What was tried and what came of it. */
  found: string;
  /** What happens instead; null when all is well. */
  fallback: string | null;
  /** What that means for tenants. */
  meaning: string | null;
  /** What an operator can do about it. */
  todo: string | null;
}

/** Every wall, and whether a node can run containers without it at all. */
export const walls = {
  privileges: { optional: false },
  'user-namespaces': { optional: false },
  'idmapped-layers': { optional: false },
  seccomp: { optional: false },
  'cpu-limit': { optional: false },
  'memory-limit': { optional: false },
  'swap-limit': { optional: true },
  'pids-limit': { optional: false },
  'io-limit': { optional: true },
  'disk-limit': { optional: true },
  firewall: { optional: false },
  'network-limit': { optional: false },
} as const;
export type Wall = keyof typeof walls;

export const isWall = (name: string): name is Wall => Object.hasOwn(walls, name);

/** Walls that may be named as allowed to be missing. */
export const optionalWalls = (Object.keys(walls) as Wall[]).filter((name) => walls[name].optional);

export const ok = (check: string, found: string): Finding => ({
  ...{ check, status: 'ok', wall: isWall(check), found },
  ...{ fallback: null, meaning: null, todo: null },
});

interface Problem {
  found: string;
  fallback: string;
  meaning: string;
  todo: string;
}

export const degraded = (check: string, problem: Problem): Finding => ({
  ...{ check, status: 'degraded', wall: isWall(check) },
  ...problem,
});

export const missing = (check: string, problem: Problem): Finding => ({
  ...{ check, status: 'missing', wall: isWall(check) },
  ...problem,
});

export const missingWalls = (findings: readonly Finding[]): Wall[] =>
  findings.flatMap(({ check, status, wall }) =>
    wall && status === 'missing' && isWall(check) ? [check] : [],
  );

/** Why a node with these walls missing may not run tenants' containers; null: it may. */
export function planRefusal(findings: readonly Finding[], allowed: readonly Wall[]): string | null {
  const open = findings.filter(
    ({ check, status, wall }) =>
      wall && status === 'missing' && !allowed.some((name) => name === check),
  );
  if (open.length === 0) return null;
  const lines = open.map(
    ({ check, found, meaning, todo }) =>
      `  ${check}: ${found}\n    ${[meaning, todo].filter((text) => text !== null).join(' ')}`,
  );
  const waivable = open
    .map(({ check }) => check)
    .filter((name) => isWall(name) && walls[name].optional);
  const waive =
    waivable.length === 0
      ? ''
      : `\nTo run without ${waivable.length === 1 ? 'it' : 'them'} all the same: AGENT_ALLOW_MISSING_WALLS=${[...allowed, ...waivable].join(',')}`;
  return `This host cannot keep tenants apart, so the agent does not start:\n${lines.join('\n')}${waive}\nAll of it: bulkhead-agent doctor`;
}
