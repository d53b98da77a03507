import { setTimeout as delay } from 'node:timers/promises';

/** Tries again until `attempt` succeeds; at the deadline throws with the last error as the reason. */
export async function until<T>(
  attempt: () => Promise<T>,
  deadlineMs: number,
  complaint: string,
): Promise<T> {
  const deadline = performance.now() + deadlineMs;
  for (let pause = 20; ; pause = Math.min(pause * 1.5, 500)) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() + pause > deadline)
        throw new Error(
          `${complaint} after ${deadlineMs / 1000} s: ${error instanceof Error ? error.message : String(error)}`,
        );
      await delay(pause);
    }
  }
}
