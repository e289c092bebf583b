/** `ctr-remote`: containerd's `ctr` with pulls for remote snapshotters, conversions to Nydus and recordings. */
import { main } from './main.ts'

void main(process.argv.slice(2))
