import { examineNode, type Finding } from '../../snapshotter/doctor/index.ts'
import { endNow, ExitError, type Output } from '../output.ts'

export interface DoctorFlags {
  readonly config?: string
  readonly containerdConfig?: string
  readonly image?: string
  readonly json?: boolean
}

const MARKS: Readonly<Record<Finding['status'], string>> = {
  ok: 'ok     ',
  warning: 'warning',
  failed: 'FAILED ',
  skipped: 'skipped',
}

/** Prints what was found: what is in order on a line, what is not with what to do. Throws ExitError 1 when something failed. */
export async function doctor(flags: DoctorFlags, output: Output): Promise<void> {
  const stop = new AbortController()
  const onSignal = (): void => stop.abort()
  process.once('SIGINT', onSignal)
  const options = { configFile: flags.config, containerdConfigFile: flags.containerdConfig, image: flags.image }
  const findings = await examineNode(options, stop.signal)
  process.off('SIGINT', onSignal)
  // A question to a mount that hangs, and is not taken back, must not keep us.
  setTimeout(() => void endNow(Number(process.exitCode ?? 0)), 1000).unref()
  if (stop.signal.aborted) throw new ExitError(130, '')
  const count = (status: Finding['status']): number => findings.filter((one) => one.status === status).length
  const failed = count('failed')
  if (flags.json === true) output.json({ failed, warnings: count('warning'), findings })
  else {
    for (const { check, status, what, fix } of findings) {
      output.line(`${MARKS[status]}  ${check}: ${what}`)
      if (fix !== undefined) for (const line of fix.split('\n')) output.line(`             ${line}`)
    }
    output.line(
      `${findings.length} findings: ${failed} failed, ${count('warning')} warnings, ${count('skipped')} skipped`,
    )
  }
  if (failed > 0) throw new ExitError(1, '')
}
