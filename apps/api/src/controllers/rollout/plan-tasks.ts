import type { AppSnapshot, TaskSnapshot } from './app-snapshot.ts';

export interface TaskStep {
  readonly do: 'remove' | 'forget';
  readonly instance: string;
  readonly why: string;
}

/** A task that has ended stays so long, so that whoever comes late to it still gets its output. Milliseconds. */
export const keptMs = 10_000;

/**
 * Which one-off tasks are over. A task that has ended is removed, with its exit kept in its row; it
 * is never started again, wherever its node went.
 */
export function planTasks(app: AppSnapshot): TaskStep[] {
  return app.tasks.flatMap((task): TaskStep[] => {
    const why = over(app, task);
    if (why === null) return [];
    if (task.nodeId === null) return [{ do: 'forget', instance: task.id, why }];
    // Its node has been told.
    if (task.desired === 'gone') return [];
    return [{ do: 'remove', instance: task.id, why }];
  });
}

function over(app: AppSnapshot, task: TaskSnapshot): string | null {
  if (task.desired === 'gone') return 'somebody stopped it';
  if (task.state === 'ended' && app.now - task.stateAt >= keptMs) return 'it has ended';
  if (task.state === 'failed') return 'it cannot start';
  if (app.state === 'stopped') return 'the app is stopped';
  if (app.state === 'deleting') return 'the app is being destroyed';
  if (app.now >= task.deadlineAt) return 'it ran for longer than it may';
  return null;
}
