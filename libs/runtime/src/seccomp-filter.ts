import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import koffi from 'koffi';
import type { SeccompProfile, SeccompRule } from './seccomp.ts';

/**
 * Profiles as the kernel takes them, compiled once by libseccomp, as crun would at each start: that
 * took it 1.5 ms of a processor, a seventh of all its work.
 */

/** The annotation in which crun takes a filter, base64, in place of a profile. */
const annotation = 'run.oci.seccomp_bpf_data';
/** What stands in the profile's place: should crun not know the annotation, nothing runs. */
const nothing = { defaultAction: 'SCMP_ACT_KILL_PROCESS' } as const;

const comparisons = { SCMP_CMP_EQ: 4, SCMP_CMP_MASKED_EQ: 7 } as const;
/** libseccomp's answer for a name that it does not know. */
const unknownCall = -1;

interface Config {
  annotations?: Record<string, string>;
  linux: { seccomp?: SeccompProfile };
}

const compiled = new Map<string, string>();

/** An OCI configuration with its seccomp profile compiled. Throws when libseccomp refuses it. */
export function withFilter(config: object): object {
  const { annotations, linux } = config as Config;
  const { seccomp } = linux;
  if (!seccomp) return config;
  const key = JSON.stringify(seccomp);
  let filter = compiled.get(key);
  if (filter === undefined) {
    filter = compile(seccomp).toString('base64');
    compiled.set(key, filter);
  }
  return {
    ...config,
    annotations: { ...annotations, [annotation]: filter },
    linux: { ...linux, seccomp: nothing },
  };
}

/** struct sock_filter[] */
function compile(profile: SeccompProfile): Buffer {
  const lib = load();
  const fallback = actionOf(profile.defaultAction, profile.defaultErrnoRet);
  const context: unknown = lib.init(fallback);
  if (!context) throw new Error('libseccomp: no memory');
  try {
    for (const name of profile.architectures) {
      const token = lib.architecture(name.replace('SCMP_ARCH_', '').toLowerCase());
      if (token === 0) throw new Error(`libseccomp: no architecture ${name}`);
      // The native one is there already.
      checked(`architecture ${name}`, lib.addArchitecture(context, token), EEXIST);
    }
    for (const rule of profile.syscalls) addRule(context, rule, fallback);
    const dir = mkdtempSync(`${tmpdir()}/bulkhead-filter-`);
    try {
      const fd = openSync(`${dir}/filter`, 'wx', 0o600);
      try {
        checked('export', lib.exportBpf(context, fd));
      } finally {
        closeSync(fd);
      }
      return readFileSync(`${dir}/filter`);
    } finally {
      rmSync(dir, { recursive: true });
    }
  } finally {
    lib.release(context);
  }
}

/** A call that libseccomp does not know gets the default answer, as crun does it. */
function addRule(context: unknown, rule: SeccompRule, fallback: number): void {
  const lib = load();
  const action = actionOf(rule.action, rule.errnoRet);
  if (action === fallback) return;
  const args = (rule.args ?? []).map(({ index, op, value, valueTwo }) => ({
    ...{ arg: index, op: comparisons[op], a: value, b: valueTwo ?? 0 },
  }));
  for (const name of rule.names) {
    const call = lib.call(name);
    if (call === unknownCall) continue;
    checked(`rule for ${name}`, lib.addRule(context, action, call, args.length, args));
  }
}

const EEXIST = 17;

function actionOf(action: SeccompRule['action'], errno = 1): number {
  return action === 'SCMP_ACT_ALLOW' ? 0x7fff_0000 : 0x0005_0000 | errno;
}

function checked(what: string, result: number, fine = 0): void {
  if (result < 0 && result !== -fine) throw new Error(`libseccomp: ${what}: error ${-result}`);
}

type Library = ReturnType<typeof open>;
let library: Library | undefined;
const load = (): Library => (library ??= open());

/** crun's own dependency, so it is there. */
function open() {
  const lib = koffi.load('libseccomp.so.2');
  koffi.struct('scmp_arg_cmp', { arg: 'uint', op: 'int', a: 'uint64_t', b: 'uint64_t' });
  return {
    init: lib.func('void *seccomp_init(uint32_t)'),
    release: lib.func('void seccomp_release(void *)'),
    architecture: lib.func('uint32_t seccomp_arch_resolve_name(str)'),
    addArchitecture: lib.func('int seccomp_arch_add(void *, uint32_t)'),
    call: lib.func('int seccomp_syscall_resolve_name(str)'),
    addRule: lib.func(
      'int seccomp_rule_add_array(void *, uint32_t, int, uint, const scmp_arg_cmp *)',
    ),
    exportBpf: lib.func('int seccomp_export_bpf(void *, int)'),
  };
}
