-- AlterEnum
ALTER TYPE "InstanceState" ADD VALUE 'ended';

-- AlterTable
ALTER TABLE "Instance" ADD COLUMN     "deadlineAt" TIMESTAMPTZ(3),
ADD COLUMN     "oneOff" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "task" JSONB;
