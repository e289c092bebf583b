/**
 * `process.report.getReport` stops until every thread has told about itself, and a thread that waits in the kernel for a FUSE request never does. Native modules ask it, when they
 * are first loaded, only to learn which C library this is: the whole daemon would hang. From here on it answers just that. (A session needs glibc: the kernel room opens libc.so.6.)
 */
export function answerReportsAlone(): void {
  const { report } = process
  if (report === undefined) return
  report.getReport = () => ({ header: { glibcVersionRuntime: 'glibc' } })
}
