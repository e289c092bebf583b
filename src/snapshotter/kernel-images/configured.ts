import { keepsPlainChunks } from '../registry-config.ts'
import type { Settings } from '../settings/index.ts'
import type { KernelImageWish } from './probe.ts'

type Configured = Pick<Settings, 'daemonMode'> & {
  readonly daemon: Pick<Settings['daemon'], 'fsDriver' | 'configPath'>
  readonly snapshot: Pick<Settings['snapshot'], 'erofsForCached' | 'nydusOverlayfs' | 'kataVolume'>
}

/**
 * Which images the kernel is to show, or why none: they are not wanted, others mount them by options of ours, or the cache keeps chunks in another form than the image's. `template` is that of nydusd's
 * configuration.
 */
export function configuredWish(settings: Configured, template: unknown): KernelImageWish | { readonly why: string } {
  const { daemon, daemonMode, snapshot } = settings
  const { erofsForCached: wish } = snapshot
  if (wish === 'never') return { why: 'snapshot.enable_erofs_for_cached is false' }
  if (daemon.fsDriver !== 'fusedev') return { why: `daemon.fs_driver is ${JSON.stringify(daemon.fsDriver)}` }
  if (daemonMode === 'none') return { why: 'daemon_mode is "none"' }
  if (snapshot.nydusOverlayfs) return { why: 'snapshot.enable_nydus_overlayfs is true' }
  if (snapshot.kataVolume) return { why: 'snapshot.enable_kata_volume is true' }
  if (!keepsPlainChunks(template)) return { why: `by ${daemon.configPath} the cache is compressed or encrypted` }
  return wish
}
