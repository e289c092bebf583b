/** `containerd-nydus-grpc doctor`: what keeps images from starting on this node, and how to repair it. */
export { type ExamineOptions, examineNode } from './examine.ts'
export type { Finding } from './finding.ts'
