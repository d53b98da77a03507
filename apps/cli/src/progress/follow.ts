import { CliError, Interrupted } from '../errors.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { deploymentById, deploymentProgress } from '../graphql/operations.ts';
import { ConnectionLost, subscribe } from '../graphql/subscription.ts';
import type { Deployment } from '../graphql/types.ts';

export interface FollowOptions {
  readonly client: GraphqlClient;
  readonly id: string;
  /** Told when the connection is in trouble, and with null when it is well again. */
  readonly trouble: (text: string | null) => void;
  /** How long the server may be away before we give up. Milliseconds. */
  readonly patienceMs?: number;
  readonly pollMs?: number;
}

/** Sockets that fail in a row before we only poll: a proxy in between may not let them through. */
const socketAttempts = 3;

/**
 * The deployment as it is now, then after every change, up to and including its final state. Comes
 * over a subscription; each time the socket is lost we ask once over HTTP, so a server without
 * WebSockets is merely polled, and one that restarts is picked up where it was.
 */
export async function* followDeployment(
  options: FollowOptions,
): AsyncGenerator<Deployment, void, void> {
  const { client, id, trouble, patienceMs = 60_000, pollMs = 1_000 } = options;
  let failures = 0;
  let away: number | null = null;
  for (;;) {
    if (failures < socketAttempts) {
      try {
        for await (const { deploymentProgress: deployment } of subscribe(
          client,
          deploymentProgress,
          { id },
        )) {
          failures = 0;
          away = null;
          trouble(null);
          yield deployment;
          if (isFinal(deployment)) return;
        }
        failures += 1;
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        failures += 1;
      }
    }
    try {
      const { deployment } = await client.request(deploymentById, { id });
      away = null;
      trouble(null);
      yield deployment;
      if (isFinal(deployment)) return;
    } catch (error) {
      if (!(error instanceof CliError) || error.exit !== 'UNAVAILABLE') throw error;
      away ??= Date.now();
      if (Date.now() - away >= patienceMs) throw error;
      trouble(`${error.message}; trying again`);
    }
    await pause(pollMs, client.options.signal);
  }
}

export function isFinal(deployment: Pick<Deployment, 'status'>): boolean {
  return deployment.status !== 'RUNNING';
}

/** Waits; throws Interrupted when the signal fires first. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(new Interrupted());
      return;
    }
    const stop = () => {
      clearTimeout(timer);
      reject(new Interrupted());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}
