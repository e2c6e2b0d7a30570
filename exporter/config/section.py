"""What all sections of the configuration have in common."""

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_empty(cls, value: object) -> object:
        """A key without a value (`ca_file:` or `null`) is a key left out."""
        if value is None:
            return {}
        if isinstance(value, dict):
            known = cls.model_fields
            return {
                key: item for key, item in value.items() if item is not None or key not in known
            }
        return value
