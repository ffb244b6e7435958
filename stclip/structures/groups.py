"""The groups that classes fall into where a person can have several (method.md sections 7, 8)."""

POSE, OBJECT, PERSON = "pose", "object", "person"
# A person has one class of the first group, and any number of the others.
GROUPS = (POSE, OBJECT, PERSON)
