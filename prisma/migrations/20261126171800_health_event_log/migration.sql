-- CreateTable
CREATE TABLE "health_event_log" (
    "id" INTEGER NOT NULL,
    "last_position" BIGINT NOT NULL,
    "expired_position" BIGINT NOT NULL DEFAULT 0,
    "lost_after" BIGINT NOT NULL DEFAULT 0,
    "restored_position" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "health_event_log_pkey" PRIMARY KEY ("id")
);

-- Positions go on behind the highest one that is stored.
INSERT INTO "health_event_log" ("id", "last_position")
SELECT 1, coalesce(max("position"), 0) FROM "health_event";
