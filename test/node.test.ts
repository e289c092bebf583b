/** A real node with the machine's containerd: the quick ones of `npm run node-test`. */
import { CASES } from './node/cases.ts'
import { built, testCases, whyNoTest } from './node/tested.ts'

const programs = { snapshotter: built('containerd-nydus-grpc'), nydusd: built('nydusd') }
testCases(
  CASES.filter(({ isShort }) => isShort === true),
  programs,
  whyNoTest(programs),
)
