import { readFile, readlink } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platform, type Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

// A hostile tenant, root inside its container, with a shell: what it can see and reach.
describe('what a container can reach and see', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let probe: string;
  let victim: TenantFixture;
  let victimId: string;
  let number = 0;

  beforeAll(async () => {
    p = await platform();
    [tenant, victim] = [await TenantFixture.create(p.apiUrl), await TenantFixture.create(p.apiUrl)];
    probe = await p.push(tenant, 'probe', 'probe:1');
    const hello = await p.push(victim, 'hello', 'hello:1');
    await victim.createApp('victim');
    await victim.succeeded(await victim.deploy('victim', hello, [{ name: 'web', port: 8080 }]));
    victimId = (await victim.instances('victim'))[0]!.id;
  });
  afterAll(() => p.release());

  /** Runs a shell script in a container of the hostile tenant and gives what it wrote. */
  async function inside(
    script: string,
    memoryMiB = 32,
  ): Promise<{ output: string; instance: string }> {
    const app = `probe${number++}`;
    await tenant.createApp(app);
    await tenant.succeeded(
      await tenant.deploy(app, probe, [
        {
          name: 'worker',
          memoryMiB,
          command: ['/bin/sh', '-c', `{ ${script}\n} 2>&1; echo the-end; sleep 100000`],
        },
      ]),
    );
    const output = await until('the script has ended', async () => {
      const lines = await tenant.logs(app, 1000);
      return lines.includes('the-end') ? lines.join('\n') : null;
    });
    return { output, instance: (await tenant.instances(app))[0]!.id };
  }

  /** Tries them all at once: a host may have many addresses, and a command is not to be long. */
  const reaching = (targets: readonly (readonly [string, number])[]) => `
    try() { if nc -w 2 $1 $2 </dev/null 2>/dev/null; then echo "reached $1:$2"; else echo "no way to $1:$2"; fi; }
    for at in ${targets.map(([host, port]) => `${host}:${port}`).join(' ')}; do
      try \${at%:*} \${at#*:} &
    done
    wait`;

  test("another tenant's container, the host and the platform are out of reach", async () => {
    const address = await p.addressOf(victimId);
    const targets: [string, number][] = [
      [address, 8080],
      ...p.hostAddresses.flatMap((host): [string, number][] =>
        p.platformPorts.map((port) => [host, port]),
      ),
      ['169.254.169.254', 80],
      ['169.254.1.1', p.platformPorts[0]!],
    ];
    const { output } = await inside(reaching(targets));

    expect(output).not.toContain('reached');
    expect(output.match(/no way to/g)).toHaveLength(targets.length);
    // The control: the host itself does reach the victim, so that the probe's "no" means something.
    expect(await p.reaches(address, 8080)).toBe(true);
  });

  test('root inside is nobody outside, and no two containers are the same nobody', async () => {
    const { output, instance } = await inside('id -u; cat /proc/self/uid_map; hostname');
    const status = await readFile(`/proc/${await p.containerPid(instance)}/status`, 'utf8');
    const uid = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]);
    const other = await readFile(`/proc/${await p.containerPid(victimId)}/uid_map`, 'utf8');

    expect(output).toMatch(/^0$/m);
    expect(output).toContain(instance);
    expect(uid).toBeGreaterThanOrEqual(65_536);
    expect(uid % 65_536).toBe(0);
    expect(Number(other.trim().split(/\s+/)[1])).not.toBe(uid);
  });

  test('it sees its own processes only, and every namespace is its own', async () => {
    const { output, instance } = await inside('ls -d /proc/[0-9]* | wc -l');
    const pid = await p.containerPid(instance);
    const link = async (of: number | 'self', ns: string) => readlink(`/proc/${of}/ns/${ns}`);

    expect(Number(/^\d+$/m.exec(output)?.[0])).toBeLessThan(8);
    for (const ns of ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts']) {
      expect(await link(pid, ns), ns).not.toBe(await link('self', ns));
    }
  });

  test('the ways out are closed, each for its own reason', async () => {
    const { output } = await inside(`
      mount -t tmpfs none /mnt && echo escaped mount
      unshare -U true && echo escaped userns
      unshare -m true && echo escaped mountns
      mknod /tmp/disk b 254 0 && echo escaped mknod
      chroot / true && echo escaped chroot
      echo 1 > /proc/sys/kernel/panic && echo escaped sysctl
      echo b > /proc/sysrq-trigger && echo escaped sysrq
      cat /proc/kcore > /dev/null && echo escaped kcore
      ip link set eth0 down && echo escaped net
      ip addr add 10.99.99.99/32 dev eth0 && echo escaped address
      hostname other && echo escaped hostname
      dmesg && echo escaped dmesg
      ls /sys/firmware/* && echo escaped firmware
      grep NoNewPrivs /proc/self/status
      grep Seccomp: /proc/self/status
      grep CapBnd /proc/self/status
    `);

    expect(output).not.toMatch(/escaped/);
    expect(output).toMatch(/NoNewPrivs:\s+1/);
    expect(output).toMatch(/Seccomp:\s+2/);
    // No more than CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE.
    const capabilities = BigInt(`0x${/CapBnd:\s+([0-9a-f]+)/.exec(output)![1]}`);
    expect(capabilities & ~0x4fbn).toBe(0n);
  });

  test('a fork bomb ends at its limit and hurts nobody else', async () => {
    // The shell that cannot fork any more ends; the verdict then holds its last lines.
    const { output } = await inside(
      `
      i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done
      echo survived
    `,
      256,
    ).catch((error: unknown) => ({ output: String(error) }));

    expect(output).toMatch(/can't fork|Resource temporarily unavailable/);
    expect((await victim.instances('victim'))[0]).toMatchObject({ id: victimId, state: 'READY' });
  });
});
