import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Outcome } from './main.ts'
import { excludedCases, type Place } from './places.ts'

/** Runs all files of the suite; needs prove(1), and autoconf and a compiler when the checkout is not built yet (a copy is built). */
export async function runPjdfstest(checkout: string, place: Place): Promise<Outcome> {
  const suite = existsSync(join(checkout, 'pjdfstest')) ? checkout : build(checkout, place.folder)
  const excluded = excludedCases('pjdfstest', place.mode)
  const files = readdirSync(join(suite, 'tests'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.t') && !excluded.has(file))
    .sort()
  const work = join(place.at, 'pjdfstest')
  mkdirSync(work)
  const paths = files.map((file) => join(suite, 'tests', file))
  const prove = spawn('prove', ['-Q', '-j2', ...paths], { cwd: work, stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  prove.stdout.on('data', (part: Buffer) => (output += part.toString()))
  await once(prove, 'close')
  const total = Number(/Files=\d+, Tests=(\d+)/.exec(output)?.[1] ?? Number.NaN)
  if (!Number.isFinite(total)) throw new Error(`prove told nothing that makes sense:\n${output}`)
  const failed = [...output.matchAll(/^(\S+\.t) .*Failed: ([1-9]\d*)\)/gm)].map(
    ([, file, count]) => `${file}: ${count}`,
  )
  const broken = /Result: (?:FAIL|NOTESTS)/.test(output) && failed.length === 0 ? ['prove: see above'] : failed
  const failures = [...output.matchAll(/Failed: (\d+)\)/g)].reduce((sum, [, count]) => sum + Number(count), 0)
  return { passed: total - failures, failed: broken, excluded: excluded.size }
}

function build(checkout: string, folder: string): string {
  const copy = join(folder, 'suite')
  cpSync(checkout, copy, { recursive: true })
  const options = { cwd: copy, stdio: 'ignore' } as const
  execFileSync('/bin/sh', ['-c', 'autoreconf -ifs && ./configure && make pjdfstest'], options)
  return copy
}
