import { join } from 'node:path';
import { instanceSpec, type InstanceSpec, type TenantLimits } from '@bulkhead/protocol';
import type { Logger } from 'pino';
import { JsonFolder } from './files.ts';

/** `refused`: older than what we hold. `repeated`: the generation that we hold. */
export type Acceptance = 'accepted' | 'repeated' | 'refused';

/** Whether a specification that arrives takes the place of the one held. */
export function judgeArrival(held: InstanceSpec | undefined, arrived: InstanceSpec): Acceptance {
  if (held === undefined || arrived.generation > held.generation) return 'accepted';
  return arrived.generation === held.generation ? 'repeated' : 'refused';
}

/**
 * The last desired state of this node, in memory and on disk (config still sealed). It only grows:
 * an instance leaves by `forget`, after it was wanted gone and proven gone.
 */
export class DesiredStore {
  readonly #folder: JsonFolder<InstanceSpec>;
  readonly #log: Logger;
  #specs = new Map<string, InstanceSpec>();
  /** Tombstones whose key has disappeared from the bucket. */
  readonly #withoutKey = new Set<string>();

  constructor(nodeDir: string, log: Logger) {
    this.#folder = new JsonFolder(join(nodeDir, 'desired'), { durable: true });
    this.#log = log;
  }

  /** Reads what the agent before this one knew. */
  async load(): Promise<void> {
    this.#specs = await this.#folder.load(
      (value) => instanceSpec.parse(value),
      (name, error) =>
        this.#log.error(
          { instance: name, err: error },
          'the stored desired state is unreadable; what runs is left alone until NATS tells again',
        ),
    );
  }

  get(instance: string): InstanceSpec | undefined {
    return this.#specs.get(instance);
  }

  /** A tenant's limits by the youngest of its specifications; undefined when it has none here. */
  tenantLimits(tenantId: string): TenantLimits | undefined {
    let youngest: TenantLimits | undefined;
    for (const spec of this.#specs.values()) {
      if (spec.desired !== 'running' || spec.tenant.id !== tenantId) continue;
      const { limits } = spec.tenant;
      if (youngest === undefined || limits.asOf > youngest.asOf) youngest = limits;
    }
    return youngest;
  }

  instances(): string[] {
    return [...this.#specs.keys()];
  }

  /** Takes a specification in; it is on disk when `saved` resolves. */
  accept(spec: InstanceSpec): { verdict: Acceptance; saved: Promise<void> } {
    this.#withoutKey.delete(spec.instance);
    const verdict = judgeArrival(this.#specs.get(spec.instance), spec);
    if (verdict !== 'accepted') return { verdict, saved: Promise.resolve() };
    this.#specs.set(spec.instance, spec);
    return { verdict, saved: this.#folder.put(spec.instance, spec) };
  }

  /** The bucket has no key for it any more. Means nothing for what should run. */
  noteKeyAbsent(instance: string): void {
    if (this.#specs.get(instance)?.desired === 'gone') this.#withoutKey.add(instance);
  }

  /** A tombstone that nobody will ask for again. */
  isForgettable(instance: string): boolean {
    return this.#withoutKey.has(instance);
  }

  async forget(instance: string): Promise<void> {
    this.#specs.delete(instance);
    this.#withoutKey.delete(instance);
    await this.#folder.put(instance, null);
  }

  async flush(): Promise<void> {
    await this.#folder.flush();
  }
}
