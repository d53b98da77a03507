import { Inject, Injectable } from '@nestjs/common';
import type { DeploymentView } from '@bulkhead/tenancy';
import type { Door, Owned } from '../graphql/door.ts';
import { endable } from '../graphql/endable.ts';
import { patiently } from '../graphql/patiently.ts';
import { AppNudges } from '../nats/app-nudges.ts';

/** How long to wait for a nudge before looking all the same. Milliseconds. */
const pollMs = 2000;

interface Look {
  deployment: Owned<DeploymentView>;
  /** Equal when there is nothing new to show. */
  fingerprint: string;
}

/** Follows a deployment: nudges say when to look, PostgreSQL says what there is to see. */
@Injectable()
export class DeploymentProgress {
  constructor(@Inject(AppNudges) private readonly nudges: AppNudges) {}

  /** Gives the deployment at once, then after each change, and ends after its final status. */
  async follow(door: Door, id: string) {
    const first = await look(door, id);
    return endable((ending) => this.#looks(door, first, ending));
  }

  async *#looks(door: Door, first: Look, ending: AbortSignal) {
    yield { deploymentProgress: first.deployment };
    for (let seen = first; seen.deployment.status === 'running' && !ending.aborted;) {
      const nudge = this.nudges.next(seen.deployment.appId, pollMs, ending);
      // Between the look that was shown and this wait something may have changed: look first.
      let now = await patiently(() => look(door, seen.deployment.id), ending);
      if (now.fingerprint === seen.fingerprint) {
        await nudge;
        if (ending.aborted) return;
        now = await patiently(() => look(door, seen.deployment.id), ending);
      }
      if (now.fingerprint !== seen.fingerprint) yield { deploymentProgress: now.deployment };
      seen = now;
    }
  }
}

/** Opens the door again each time: who is no member any more sees no more. */
async function look(door: Door, id: string): Promise<Look> {
  return door.run({ deployment: id }, async (tx) => {
    const deployment = await tx.deployments.get(id);
    const events = await tx.deployments.events(id);
    const instances = await tx.instances.live(deployment.appId);
    const fingerprint = JSON.stringify([
      deployment.status,
      deployment.failure,
      deployment.step,
      deployment.pause,
      events.at(-1)?.id,
      instances.map(({ id, state, desired, message, restarts }) => [
        id,
        state,
        desired,
        message,
        restarts,
      ]),
    ]);
    return { deployment: { ...deployment, tenantId: tx.tenant.id }, fingerprint };
  });
}
