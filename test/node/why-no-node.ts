import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { whyNoFuse } from '../../src/kernel/index.ts'
import { prepareCgroups } from './cgroups.ts'

/** Why containers cannot run on this machine, or undefined. Mounts control groups where there are none. */
export function whyNoNode(): string | undefined {
  if (process.getuid?.() !== 0) return 'it needs root'
  return whyNoFuse() ?? whyNoOverlay() ?? whyNoPrograms() ?? prepareCgroups()
}

function whyNoPrograms(): string | undefined {
  const missing = ['containerd', 'ctr', 'runc'].find((name) => spawnSync(name, ['--version']).error !== undefined)
  return missing === undefined ? undefined : `${missing} is not installed`
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
