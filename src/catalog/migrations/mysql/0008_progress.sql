-- How far the work of a task is, as JSON; NULL before it begins and once it has ended.
ALTER TABLE tasks ADD COLUMN progress MEDIUMTEXT;
