import { execFile, spawn } from 'node:child_process';
import { cp, mkdir, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const cgroup = 'bhcrun';

interface OciConfig {
  hostname: string;
  root: { path: string };
  linux: { cgroupsPath: string };
  mounts: { source: string }[];
}

/**
 * The floor: crun alone, with the configuration of a container of ours. What it lacks: nobody
 * supervises or logs it, its network namespace is empty, there is no overlay and no disk limit, all
 * containers share one unpacked root file system and one range of ids, and no limit but memory and
 * processes is set.
 */
export class BareCrun {
  private readonly dir: string;
  private readonly template: OciConfig;
  private readonly made: string[] = [];

  private constructor(dir: string, template: OciConfig) {
    this.dir = dir;
    this.template = template;
  }

  /** `bundle` is that of a running container of ours, `layers` the archives of the same image, lowest first. */
  static async create(dir: string, bundle: string, layers: readonly string[]): Promise<BareCrun> {
    const template = JSON.parse(
      await readFile(join(bundle, 'config.json'), 'utf8'),
    ) as OciConfig & { linux: { uidMappings: { hostID: number }[] } };
    await mkdir(dir, { mode: 0o711 });
    const rootfs = join(dir, 'rootfs');
    await mkdir(rootfs);
    for (const layer of layers) await run('tar', ['-xf', layer, '-C', rootfs]);
    await cp(join(bundle, '../etc'), join(dir, 'etc'), { recursive: true });
    const owner = template.linux.uidMappings[0]!.hostID;
    await run('chown', ['-hR', `${owner}:${owner}`, rootfs]);
    const etc = join(bundle, '../etc');
    for (const mount of template.mounts)
      if (mount.source.startsWith(`${etc}/`))
        mount.source = mount.source.replace(etc, `${dir}/etc`);
    template.root.path = rootfs;
    return new BareCrun(dir, template);
  }

  /** Bundles for `ids`, so that none is written while the clock runs. */
  async prepare(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const config = { ...this.template, hostname: id };
      config.linux = { ...config.linux, cgroupsPath: `/${cgroup}/${id}` };
      await mkdir(join(this.dir, id));
      await writeFile(join(this.dir, id, 'config.json'), JSON.stringify(config));
      this.made.push(id);
    }
  }

  /** From the main thread of a process whose runtime is ready: crun refuses a hybrid cgroup layout (host-thread.ts). */
  run(id: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = spawn(
        'crun',
        [`--root=${this.dir}/state`, 'run', '--detach', `--bundle=${this.dir}/${id}`, id],
        { stdio: ['ignore', 'ignore', 'inherit'] },
      );
      child.on('error', reject);
      child.on('exit', (code) =>
        code === 0 ? resolve() : reject(new Error(`crun run ${id} ended with ${code}`)),
      );
    });
  }

  async removeAll(): Promise<void> {
    for (const id of this.made.splice(0)) {
      await run('crun', [`--root=${this.dir}/state`, 'delete', '--force', id]).catch(
        () => undefined,
      );
      await rm(join(this.dir, id), { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await this.removeAll();
    for (const controller of await readdir('/sys/fs/cgroup'))
      await rmdir(`/sys/fs/cgroup/${controller}/${cgroup}`).catch(() => undefined);
  }
}
