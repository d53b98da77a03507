/**
 * How a deployment moves from gate to gate. It stands at one once all that the stage wants is ready
 * and served by the edges, and passes it when its time is over or somebody promotes it.
 */
import { stagesOf, trafficOf, type Stage } from '@bulkhead/protocol';
import type { AppSnapshot, DeploymentSnapshot } from './app-snapshot.ts';
import { edgesServeIt } from './plan-verdict.ts';
import { hasItsNew, newReadyOf, processesOf, targetsOf } from './stage.ts';
import { isCurrent, routedProcess } from './wanted.ts';

export type StageStep =
  /** It stands at the gate: the pause begins. */
  | { do: 'reach'; deployment: string; why: string }
  /** It has passed the gate; `step` is how many it has passed now. */
  | { do: 'advance'; deployment: string; step: number; why: string }
  /** More of it is done than was ever seen: its time begins again. */
  | { do: 'progress'; deployment: string; progress: number; why: string };

export interface StagePlan {
  readonly steps: readonly StageStep[];
  /** What people are told of it. */
  readonly lines: readonly string[];
}

/** @param settled nothing else is to be done for the app now. */
export function planStage(
  app: AppSnapshot,
  deployment: DeploymentSnapshot,
  stage: Stage | null,
  settled: boolean,
): StagePlan {
  const none = { steps: planProgress(app, deployment), lines: [] };
  if (stage === null || !settled || !hasItsNew(app, stage) || !edgesServeIt(app)) return none;
  const { id, step, reachedAt } = deployment;
  const seconds = stage.gate.kind === 'time' ? stage.gate.seconds : Infinity;
  if (reachedAt === null && seconds > 0) {
    const line = describeStage(app, deployment, stage);
    return { steps: [{ do: 'reach', deployment: id, why: line }], lines: [line] };
  }
  if (app.now - (reachedAt ?? app.now) < seconds * 1000) return none;
  const why = seconds > 0 ? 'its pause is over' : 'it is ready';
  return {
    steps: [{ do: 'advance', deployment: id, step: step + 1, why }],
    lines: [`step ${step + 1} is done: ${why}`],
  };
}

/** Only ever more: what comes and goes in turns is none. Pauses have no deadline, so they need none. */
function planProgress(app: AppSnapshot, deployment: DeploymentSnapshot): StageStep[] {
  if (deployment.reachedAt !== null) return [];
  let progress = 0;
  for (const instance of app.instances) {
    if (instance.desired !== 'running' || !isCurrent(app, instance)) progress -= 1;
    else progress += (instance.nodeId === null ? 0 : 1) + (instance.readyAt === null ? 0 : 2);
  }
  if (progress <= deployment.progress) return [];
  return [{ do: 'progress', deployment: deployment.id, progress, why: 'it got on' }];
}

/** "step 1 of 2: 1 of 4 web are v7 and get 25 % of the requests; ..." */
function describeStage(app: AppSnapshot, { strategy, step }: DeploymentSnapshot, stage: Stage) {
  const place = `step ${step + 1} of ${stagesOf(strategy).length}`;
  const [version, old] = [`v${app.release?.version ?? '?'}`, `v${app.from?.version ?? '?'}`];
  const wait =
    stage.gate.kind === 'promotion'
      ? 'it waits to be promoted'
      : `it goes on in ${stage.gate.seconds} s`;
  switch (stage.serves) {
    case 'old':
      return `${place}: ${version} is ready beside ${old} and gets no requests; ${wait}`;
    case 'new':
      return `${place}: every request goes to ${version}, ${old} is kept; ${wait}`;
    case 'both': {
      const counts = processesOf(app, stage)
        .filter((process) => targetsOf(app, stage, process).new > 0)
        .map(({ name, count }) => `${newReadyOf(app, name)} of ${count} ${name}`);
      const web = processesOf(app, stage).find(({ name }) => name === routedProcess);
      const part = web ? Math.round(trafficOf(stage, web.count) * 100) : 0;
      const requests = web?.definition?.port == null ? '' : `, ${part} % of the requests`;
      return `${place}: ${version} has ${counts.join(', ')}${requests}; ${wait}`;
    }
  }
}
