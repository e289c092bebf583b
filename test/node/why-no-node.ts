import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { whyNoFuse } from '../../src/kernel/index.ts'
import { prepareCgroups } from './cgroups.ts'

/** Why a node with nydusd cannot be had on this machine, or undefined. Mounts control groups where there are none. */
export function whyNoNode(): string | undefined {
  return whyNoFuse() ?? whyNoOverlay() ?? whyNoContainers()
}

/** Why containerd cannot run containers on this machine, or undefined. Mounts control groups where there are none. */
export function whyNoContainers(): string | undefined {
  if (process.geteuid?.() !== 0) return 'it needs root'
  const missing = ['containerd', 'ctr', 'runc'].find((name) => spawnSync(name, ['--version']).error !== undefined)
  return missing === undefined ? prepareCgroups() : `${missing} is not installed`
}

/** Overlays of overlays are refused, as in a container whose temporary folder is on one. */
function whyNoOverlay(): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'node-overlay-'))
  try {
    const names = ['lower', 'upper', 'work', 'at']
    execFileSync('mkdir', names, { cwd: folder })
    const options = 'lowerdir=lower,upperdir=upper,workdir=work'
    execFileSync('mount', ['-t', 'overlay', '-o', options, 'overlay', 'at'], { cwd: folder, stdio: 'pipe' })
    execFileSync('umount', ['at'], { cwd: folder })
    return undefined
  } catch (error) {
    return `no overlay can be mounted in ${tmpdir()}: ${(error as Error).message.trim().split('\n').at(-1)}`
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
