/**
 * The side effects of this library by name. Each is passed through, by `step`, right before it
 * happens, so that a test can have the process end, or the call fail, between any two of them and
 * count what is left (steps.spec.ts, which wants a case for every name here). In production nobody
 * listens, and a step costs a comparison.
 */
export const steps = {
  start: [
    'take-slot',
    'spawn-userns',
    'map-userns',
    'open-userns',
    'record-making',
    'limit-tenant',
    'make-directories',
    'rotate-log',
    'make-layer',
    'limit-layer',
    'own-layer',
    'write-etc',
    'mount-scratch',
    'mount-layers',
    'mount-overlay',
    'prepare-etc',
    'write-config',
    'spawn-conmon',
    'await-container',
    'limit-container',
    'create-interface',
    'limit-interface',
    'add-route',
    'configure-inside',
    'record-starting',
    'ensure-walls',
    'let-go',
    'remove-fifo',
    'started',
    'move-conmon',
  ],
  end: [
    'signal',
    'kill',
    'read-exit',
    'record-exit',
    'remove-crun-state',
    'await-conmon',
    'remove-interface',
    'remove-cgroup',
    'remove-exit-file',
    'clear-layer',
    'clear-bundle',
    'record-stopped',
    'remove-tenant',
  ],
  remove: ['record-removing', 'delete-layer', 'delete-files', 'release-slot'],
  change: ['record-paused', 'freeze', 'record-limits', 'relimit-container', 'relimit-network'],
  enter: ['ensure-entry', 'make-entry', 'spawn-entry', 'confine-entry', 'tell-entry', 'tidy-entry'],
  pull: ['make-pull-directory', 'copy-image', 'record-image', 'remove-pull-directory'],
  collect: ['remove-remains', 'forget-image', 'delete-image'],
  reconcile: [
    'hold-state',
    'seal-crun',
    'make-run-directory',
    'make-host-directories',
    'favor-moves',
    'allocate-pool',
    'format-pool',
    'attach-loop',
    'mount-pool',
    'enable-quotas',
    'make-conmon-cgroup',
    'raise-pids',
    'set-policy-rules',
    'load-rules',
    'judge',
    'sweep-cgroups',
    'sweep-interfaces',
    'sweep-layers',
    'sweep-files',
    'forget-connections',
    'reconciled',
  ],
} as const;

export type Step = (typeof steps)[keyof typeof steps][number];

let listener: ((name: Step) => void) | null = null;

export function step(name: Step): void {
  if (listener !== null) listener(name);
}

/** For tests: `hear` is called at each step from now on; what it throws fails that step. Null: nobody. */
export function listenToSteps(hear: ((name: Step) => void) | null): void {
  listener = hear;
}
